"""Benchmarks during training: a subset of some benchmarks every N steps, with the usual metrics.

In a recipe:

    run:
      callbacks:
        benchmarks: {suite: quick, data: benchmarks/, every: 200}

or in Python, `UniDPOTrainer(..., callbacks=[BenchmarkCallback(suite="quick", data="...")])`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from accelerate.utils import gather_object
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from transformers import TrainerCallback, TrainerControl, TrainerState

from unidpo_mm.config.problems import explain
from unidpo_mm.encoding_choices import PromptStyle
from unidpo_mm.errors import RecipeError
from unidpo_mm.inference.batches import generate_all
from unidpo_mm.inference.checkpoint import Checkpoint, LoadedCheckpoint

from ..benchmarks import Benchmark
from ..data.dataset import Dataset
from ..data.predictions import OPENED, Predictions
from ..data.samples import Prediction
from ..results.grading import grade_predictions
from ..results.result import Result, write_result
from .eval_run import RunSettings, prepare_run
from .plan import EvalPlan

if TYPE_CHECKING:
    from unidpo_mm.training.trainer import UniDPOTrainer

logger = logging.getLogger(__name__)

MIN_EXPECTED_FORMAT = 50.0
"""Percentage of responses in the expected format below which the chat template may be wrong."""
MAX_TRUNCATED = 90.0
"""Percentage of truncated responses above which the model may not end its turns."""


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class BenchmarkSettings:
    """Settings of the evaluation during training.

    Attributes:
        data: The benchmark's data, or a directory with a suite's.
        benchmarks: Names of benchmarks; empty if `suite` is set.
        suite: Name of a suite; `None` if `benchmarks` is set.
        every: Optimizer steps between two evaluations.
        clusters: Maximum number of clusters per benchmark, drawn with a fixed seed.
        protocol: Name of the protocol; `None` uses that of the suite or of the first benchmark.
        style: ``chat``, ``raw``, or ``auto``.
        batch_size: Maximum number of prompts per batch.
        max_new_tokens: Maximum length of a response; `None` uses the protocol's.
        images: Directory of image files.
        chat_template_kwargs: Variables for the chat template; `None` uses those of the run.
        at_start: Whether to evaluate before the first step too.
    """

    data: Path
    benchmarks: tuple[str, ...] = ()
    suite: str | None = None
    every: Annotated[int, Field(ge=1)] = 500
    clusters: Annotated[int, Field(ge=1)] = 64
    protocol: str | None = None
    style: PromptStyle = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 8
    max_new_tokens: Annotated[int | None, Field(ge=1)] = None
    images: Path | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    at_start: bool = True


def from_recipe(settings: Mapping[str, Any]) -> "BenchmarkCallback":
    """Build the callback from a recipe's settings."""
    return BenchmarkCallback(**settings)


def _parse(settings: Mapping[str, Any]) -> BenchmarkSettings:
    try:
        return TypeAdapter(BenchmarkSettings).validate_python(dict(settings))
    except ValidationError as error:
        raise RecipeError(
            replace(problem, where=".".join(["run.callbacks.benchmarks", *map(str, path)]))
            for path, problem in explain(error, dict(settings), root=BenchmarkSettings)
        ) from error


@dataclass
class _MemoryStore:
    """The responses of one evaluation, in memory."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.done |= {record["id"]: dict(record) for record in records}


class BenchmarkCallback(TrainerCallback):
    """Evaluates a subset of some benchmarks every N steps and logs the metrics.

    Metrics are logged as ``benchmarks/<name>/<headline>`` with those of the preferences; results
    are written to ``benchmarks/step-<n>/<name>.json`` in the output directory, for `eval compare`.
    Before the first step, a warning says that the chat template may be wrong if most responses do
    not have the expected format, or do not end.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = _parse(settings)
        plan = EvalPlan.build(
            data=self.settings.data,
            output=Path(),
            benchmarks=self.settings.benchmarks,
            suite=self.settings.suite,
            protocol=self.settings.protocol,
            limit=self.settings.clusters,
            allow_judge=False,
            images=self.settings.images,
        )
        self.protocol = plan.protocol
        self.benchmarks = [(source.benchmark, source.read()) for source in plan.benchmarks]
        self.trainer: UniDPOTrainer | None = None
        self.last_step = -1

    def attach(self, trainer: "UniDPOTrainer") -> None:
        """Keep the trainer, which holds the model and receives the metrics."""
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate before the first step, and warn if the chat template may be wrong."""
        if self.settings.at_start and state.global_step == 0:
            for result in self._evaluate(state.global_step):
                _check_responses(result)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate every N steps and after the last one, while trackers still accept metrics."""
        due = state.global_step % self.settings.every == 0
        if due or control.should_training_stop or state.global_step >= state.max_steps:
            self._evaluate_once(state.global_step)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate if an evaluation or a save ended training after its last step."""
        if control.should_training_stop:
            self._evaluate_once(state.global_step)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate at the end of training unless the last step has been evaluated."""
        self._evaluate_once(state.global_step)

    def _evaluate_once(self, step: int) -> None:
        """Evaluate unless that is done for this step, or a signal is about to end the run."""
        interruption = getattr(self.trainer, "interruption", None)
        if self.last_step != step and not getattr(interruption, "received", 0):
            self._evaluate(step)

    def _evaluate(self, step: int) -> list[Result]:
        trainer = self.trainer
        assert trainer is not None, "the trainer attaches its callbacks"
        self.last_step = step
        was_training = trainer.model.training
        trainer.model.eval()
        results = [self._result(trainer, *benchmark) for benchmark in self.benchmarks]
        trainer.model.train(was_training)
        _log(trainer, results)
        if trainer.is_world_process_zero():
            folder = Path(trainer.args.output_dir or ".") / "benchmarks" / f"step-{step}"
            folder.mkdir(parents=True, exist_ok=True)
            for result in results:
                write_result(result, folder / f"{result.benchmark}.json")
                _print(trainer, step, result)
        return results

    def _result(self, trainer: "UniDPOTrainer", benchmark: Benchmark, data: Dataset) -> Result:
        """Return the result of the model in training on a benchmark."""
        run = prepare_run(_loaded(trainer), benchmark, data, self._run_settings(trainer))
        store = _MemoryStore()
        # with sharded weights, all processes have to make the same calls
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        generate_all(
            run.model,
            run.prompts,
            store,
            batch_size=self.settings.batch_size,
            rank=0 if sharded else trainer.args.process_index,
            world_size=1 if sharded else trainer.args.world_size,
        )
        if trainer.args.world_size > 1 and not sharded:
            store.add(gather_object(list(store.done.values())))
        name = f"step-{trainer.state.global_step}"
        predictions = {
            sample_id: Prediction(
                id=sample_id,
                response=record["response"],
                where=name,
                finish_reason=record.get("finish_reason"),
                error=record.get("error"),
            )
            for sample_id, record in store.done.items()
        }
        manifest = {"model": name} | ({OPENED: True} if OPENED in run.manifest else {})
        return grade_predictions(
            benchmark, data, Predictions(Path(name), "", predictions, manifest), self.protocol
        )

    def _run_settings(self, trainer: "UniDPOTrainer") -> RunSettings:
        """Return the settings of a run; variables of the chat template are by default the run's."""
        variables = self.settings.chat_template_kwargs
        if variables is None:
            options = getattr(trainer.parts.adapter, "options", None)
            variables = dict(getattr(options, "chat_template_kwargs", None) or {})
        return RunSettings(
            protocol=self.protocol,
            style=self.settings.style,
            max_new_tokens=self.settings.max_new_tokens,
            images=self.settings.images,
            chat_template_kwargs=variables,
        )


def _loaded(trainer: "UniDPOTrainer") -> LoadedCheckpoint:
    """Return the model in training as a loaded checkpoint."""
    model: Any = trainer.model
    parts, device = trainer.parts, trainer.args.device
    checkpoint = Checkpoint(name="", base="", lora=None, processor="", weights="")
    processor = parts.adapter.processor
    return LoadedCheckpoint(checkpoint, model, parts.family, model.config, processor, device)


def _log(trainer: "UniDPOTrainer", results: Sequence[Result]) -> None:
    """Log the metrics without suppressing the trainer's own log of the same step.

    A log resets `should_log`, which transformers has already set for this step.
    """
    logs = {
        f"benchmarks/{result.benchmark}/{name}": result.metrics[name]
        for result in results
        for name in (result.headline, "expected_format_rate", "truncated_rate")
        if name in result.metrics
    }
    should_log = trainer.control.should_log
    trainer.log(logs)
    trainer.control.should_log = should_log


def _print(trainer: "UniDPOTrainer", step: int, result: Result) -> None:
    """Print one line for a benchmark."""
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


def _check_responses(result: Result) -> None:
    """Warn if the responses before the first step look as if the chat template were wrong."""
    response = next((s.response for s in result.per_sample if s.response), "")
    rate = result.metrics.get("expected_format_rate", 100.0)
    if rate < MIN_EXPECTED_FORMAT:
        logger.warning(
            "%s: before training, only %.0f %% of the responses have the expected format, for "
            "example %r. Check that the chat template is the model's own",
            result.title,
            rate,
            response[:60],
        )
    if result.metrics["truncated_rate"] > MAX_TRUNCATED:
        logger.warning(
            "%s: %.0f %% of the responses are truncated, for example %r. Check that the chat "
            "template ends a turn with the model's end-of-sequence token",
            result.title,
            result.metrics["truncated_rate"],
            response[:60],
        )
