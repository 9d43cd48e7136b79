"""Benchmarks while a model trains: a part of some every so many steps, beside the usual metrics.

In a recipe:

    run:
      callbacks:
        benchmarks: {suite: quick, data: benchmarks/, every: 200}

or from Python, `UniDPOTrainer(..., callbacks=[BenchmarkCallback(suite="quick", data="...")])`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from accelerate.utils import gather_object
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from transformers import TrainerCallback, TrainerControl, TrainerState

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.reasoning import opens_reasoning

from ..benchmarks import Benchmark
from ..data.dataset import DataSet
from ..data.predictions import OPENED, Predictions
from ..data.samples import Prediction
from ..prompts import load_prompts
from ..protocols import Decoding
from ..results.grading import score
from ..results.result import Result, write_result
from .eval_run import first_prompt, style_of
from .generate import Local, answer_all
from .plan import Plan
from .prompts import Question, questions_of

if TYPE_CHECKING:
    from unidpo_mm.training.trainer import UniDPOTrainer

__all__ = ["BenchmarkCallback", "BenchmarkSettings", "from_recipe"]

logger = logging.getLogger(__name__)

EXPECTED = 50.0
"""Percent of answers in the form asked for below which the chat template is probably wrong."""
ENDLESS = 90.0
"""Percent of answers that were cut above which the model probably does not end its turns."""


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class BenchmarkSettings:
    """What is asked while a model trains.

    Attributes:
        data: The benchmark's data, or a folder with a suite's.
        benchmarks: Names; empty for those of the suite.
        suite: Name of a suite; None for the benchmarks named.
        every: Optimizer steps between two looks.
        clusters: Clusters of each benchmark, drawn by a fixed seed.
        protocol: Prompts and rules; None for the suite's, or the benchmark's first.
        style: ``chat``, ``raw``, or ``auto``.
        batch_size: Questions at once.
        max_new_tokens: In place of the protocol's; None for that.
        images: Folder of pictures that the data name.
        chat_template_kwargs: Variables for the chat template; None for the run's.
        at_start: Also before the first step.
    """

    data: Path
    benchmarks: tuple[str, ...] = ()
    suite: str | None = None
    every: Annotated[int, Field(ge=1)] = 500
    clusters: Annotated[int, Field(ge=1)] = 64
    protocol: str | None = None
    style: Literal["auto", "chat", "raw"] = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 8
    max_new_tokens: Annotated[int | None, Field(ge=1)] = None
    images: Path | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    at_start: bool = True


def from_recipe(settings: Mapping[str, Any]) -> "BenchmarkCallback":
    """Returns the callback of a recipe's settings.

    Raises:
        RecipeError: With every setting that cannot be used.
    """
    return BenchmarkCallback(**settings)


def _settings(given: Mapping[str, Any]) -> BenchmarkSettings:
    try:
        return TypeAdapter(BenchmarkSettings).validate_python(dict(given))
    except ValidationError as error:
        raise RecipeError(
            Problem(
                f"run.callbacks.benchmarks.{'.'.join(map(str, one['loc']))}",
                one["msg"],
                "See `unidpo_mm_eval.run.callback.BenchmarkSettings`",
            )
            for one in error.errors()
        ) from error


@dataclass
class _Memory:
    """Answers of one look, in memory; what `answer_all` takes for a store."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.done |= {record["id"]: dict(record) for record in records}


class BenchmarkCallback(TrainerCallback):
    """Asks a part of some benchmarks every so many steps and logs what it scores.

    Metrics are logged as ``benchmarks/<name>/<headline>`` beside those of the preferences; results
    are written to ``benchmarks/step-<n>/<name>.json`` in the output folder, for `eval compare`. The
    first answers are a probe: where most are not in the form that was asked for, or do not end, the
    chat template is probably wrong, and a warning says so.

    Args:
        settings: The fields of `BenchmarkSettings`.

    Raises:
        UniDPOError: If data are not there or settings contradict each other.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = _settings(settings)
        asked = self.settings
        plan = Plan.of(
            (),
            data=asked.data,
            out=Path(),
            benchmarks=asked.benchmarks,
            suite=asked.suite,
            protocol=asked.protocol,
            names=(),
            subset=asked.clusters,
            judged=False,
            images=asked.images,
        )
        self.protocol = plan.protocol
        self.benchmarks = [(one.benchmark, one.read()) for one in plan.benchmarks]
        self.trainer: UniDPOTrainer | None = None
        self.last = -1

    def attach(self, trainer: "UniDPOTrainer") -> None:
        """Is given the trainer, which holds the model with its adapter, and logs."""
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Looks before the first step, and warns of a wrong chat template."""
        if self.settings.at_start and state.global_step == 0:
            for result in self._look(state.global_step):
                _probe(result)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate every N steps and after the last one, while trackers still take numbers."""
        due = state.global_step % self.settings.every == 0
        if due or control.should_training_stop or state.global_step >= state.max_steps:
            self._look_once(state.global_step)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate if an evaluation or a save ended training after its last step."""
        if control.should_training_stop:
            self._look_once(state.global_step)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate at the end if nothing did before."""
        self._look_once(state.global_step)

    def _look_once(self, step: int) -> None:
        """Evaluate unless that is done for this step, or a signal is about to end the run."""
        interruption = getattr(self.trainer, "interruption", None)
        if self.last != step and not getattr(interruption, "received", 0):
            self._look(step)

    def _look(self, step: int) -> list[Result]:
        trainer = self.trainer
        assert trainer is not None, "the trainer attaches its callbacks"
        self.last = step
        results: list[Result] = []
        logs: dict[str, float] = {}
        was_training = trainer.model.training
        trainer.model.eval()
        for benchmark, data in self.benchmarks:
            result = self._asked(trainer, benchmark, data)
            results.append(result)
            names = [result.headline, "expected_format_rate", "truncated_rate"]
            logs |= {
                f"benchmarks/{benchmark.name}/{name}": result.metrics[name]
                for name in names
                if name in result.metrics
            }
            if trainer.is_world_process_zero():
                folder = Path(trainer.args.output_dir or ".") / "benchmarks" / f"step-{step}"
                folder.mkdir(parents=True, exist_ok=True)
                write_result(result, folder / f"{benchmark.name}.json")
        trainer.model.train(was_training)
        _log(trainer, logs)
        if trainer.is_world_process_zero():
            _show(trainer, step, results)
        return results

    def _asked(self, trainer: "UniDPOTrainer", benchmark: Benchmark, data: DataSet) -> Result:
        """Returns what the model in training scores on a benchmark."""
        local, questions = self._questions(trainer, benchmark, data)
        store = _Memory()
        # where weights are shared between processes all have to make the same calls
        shared = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        answer_all(
            local,
            questions,
            store,
            batch_size=self.settings.batch_size,
            rank=0 if shared else trainer.args.process_index,
            world=1 if shared else trainer.args.world_size,
        )
        if trainer.args.world_size > 1 and not shared:
            store.add(gather_object(list(store.done.values())))
        said = {
            own: Prediction(
                id=own,
                response=one["response"],
                where=f"step {trainer.state.global_step}",
                finish_reason=one.get("finish_reason"),
                error=one.get("error"),
            )
            for own, one in store.done.items()
        }
        name = f"step-{trainer.state.global_step}"
        manifest: dict[str, Any] = {"model": name}
        if opens_reasoning(first_prompt(local, questions).get("text", "")):
            manifest[OPENED] = True
        predictions = Predictions(Path(name), "", said, manifest)
        return score(benchmark, data, predictions, self.protocol)

    def _variables(self, trainer: "UniDPOTrainer") -> Mapping[str, Any]:
        """Return the variables for the chat template: the run's, unless the settings name some."""
        if self.settings.chat_template_kwargs is not None:
            return self.settings.chat_template_kwargs
        options = getattr(trainer.parts.adapter, "options", None)
        return dict(getattr(options, "chat_template_kwargs", None) or {})

    def _questions(
        self, trainer: "UniDPOTrainer", benchmark: Benchmark, data: DataSet
    ) -> tuple[Local, list[Question]]:
        family, processor = trainer.parts.family, trainer.parts.adapter.processor
        asked, protocol = self.settings, self.protocol
        style = style_of(processor, asked.style)
        decoding = protocol.decoding_of(benchmark.name)
        if asked.max_new_tokens is not None:
            decoding = Decoding(**asdict(decoding) | {"max_new_tokens": asked.max_new_tokens})
        pixels = protocol.pixels_of(family.name, benchmark.name)
        options = AdapterOptions(
            prompt_style=style,
            image_min_pixels=pixels.min_pixels,
            image_max_pixels=pixels.max_pixels,
            chat_template_kwargs=self._variables(trainer),
        )
        model: Any = trainer.model
        adapter = family.create(processor, model.config, options)
        profile = load_prompts(protocol.prompt_of(family.name))
        questions = questions_of(benchmark, data, profile, images=asked.images, raw=style == "raw")
        return Local(model, adapter, decoding, trainer.args.device), questions


def _log(trainer: "UniDPOTrainer", logs: dict[str, float]) -> None:
    """Log to every tracker, and leave it to the trainer to log the loss of the same step.

    A log resets `should_log`, which the flow of transformers has set for this step already.
    """
    should_log = trainer.control.should_log
    trainer.log(logs)
    trainer.control.should_log = should_log


def _show(trainer: "UniDPOTrainer", step: int, results: Sequence[Result]) -> None:
    """Print one line for each benchmark."""
    for result in results:
        metrics = result.metrics
        rates = [f"truncated {metrics['truncated_rate']:.0f} %"]
        if "expected_format_rate" in metrics:
            rates.insert(0, f"in the expected format {metrics['expected_format_rate']:.0f} %")
        line = (
            f"step {step}  {result.title}: {result.headline} {metrics[result.headline]:.2f} "
            f"({', '.join(rates)}, n = {metrics['n']:.0f}, {result.protocol.label})"
        )
        if trainer.progress is not None:
            trainer.progress.console.print(line, soft_wrap=True, markup=False, highlight=False)
        else:
            logger.info(line)


def _probe(result: Result) -> None:
    """Warns where the first answers look as if the chat template were wrong."""
    shown = next((one.response for one in result.per_sample if one.response), "")
    said = f"the first of them: {shown[:60]!r}"
    rate = result.metrics.get("expected_format_rate", 100.0)
    if rate < EXPECTED:
        logger.warning(
            "%s: before training only %.0f %% of the answers are in the form that was asked for "
            "(%s); is the chat template the model's own?",
            result.title,
            rate,
            said,
        )
    if result.metrics["truncated_rate"] > ENDLESS:
        logger.warning(
            "%s: %.0f %% of the answers were cut (%s); does the chat template end a turn with the "
            "model's end-of-sequence token?",
            result.title,
            result.metrics["truncated_rate"],
            said,
        )
