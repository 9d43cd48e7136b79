"""Rounds of on-policy training: sample, score, train, and again with the trained model.

rounds: 3
output: runs/rounds
start: org/model                        # the model of the first round
make: make.yaml                         # a recipe of `data make`
train: uni_dpo.yaml                     # a recipe of `train`
reference: start                        # start | previous
replay: 0.25                            # of a round's rows, from earlier rounds
stop: {yield_below: 0.1, length_growth_above: 1.5, chosen_logp_drop_above: 20}

The state of a round are its files, so that an interrupted run continues and finished stages are not
repeated.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field

from ..atomic import write_text
from ..config import Check, Recipe, load_recipe
from ..config.checks.recipe import ALL_CHECKS
from ..config.load import check_valid, read_document
from ..config.paths import resolved
from ..config.sections import Section
from ..config.values import Count, Name, Seed, Share
from ..errors import Problem, RecipeError
from ..lora_directory import is_adapter_directory
from .funnel import WITH_PAIRS
from .load import Making, load_make_recipe
from .pairs import length_of
from .results import write_files
from .run import Made, make

__all__ = ["Round", "RoundsRecipe", "load_rounds", "run_rounds"]

logger = logging.getLogger(__name__)

RECORD = "round.json"
"""Name of the file with the numbers of a finished round."""
METRICS: Mapping[str, str] = {
    "logps/chosen_change": "chosen log-prob change",
    "rewards/accuracies": "reward accuracy",
    "unweighted_loss": "unweighted DPO loss",
}
"""Metric of held-out pairs -> its heading."""


class StopSection(Section):
    """Numbers at which no further round starts."""

    yield_below: Share = 0.0
    """Share of prompts with pairs."""
    length_growth_above: Annotated[float, Field(gt=1)] | None = None
    """Mean length of responses, as a multiple of that of the first round; null: no limit."""
    chosen_logp_drop_above: Annotated[float, Field(gt=0)] | None = None
    """Decrease of the mean log-prob per token of chosen held-out responses; null: no limit."""


class RoundsRecipe(Section):
    """The definition of rounds."""

    rounds: Count
    """Number of rounds."""
    output: Name
    """Directory of all rounds."""
    start: Name
    """Model of the first round: a directory or the name of a model on a hub."""
    make: Name
    """Recipe of `unidpo-mm data make`; each round uses its model, another seed and, unless the
    recipe has `prompts.part`, another part of the prompts."""
    train: Name
    """Recipe of `unidpo-mm train`; each round trains its model on its rows."""
    reference: Literal["start", "previous"] = "start"
    """Reference of every round: the model of the first round, which is the one without its LoRA
    adapter, or the model that the round starts from."""
    replay: Share = 0.0
    """Number of rows from earlier rounds, as a share of those of the round."""
    seed: Seed = 0
    """Seed of the replayed rows; each round adds its number to the seed of its responses."""
    stop: StopSection = StopSection()
    """Numbers at which no further round starts."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A finished round.

    Attributes:
        number: From 1.
        model: Directory of the trained model.
        numbers: Name -> number, for the table.
    """

    number: int
    model: Path
    numbers: Mapping[str, float]


def load_rounds(path: Path, overrides: Sequence[str] = ()) -> RoundsRecipe:
    """Return the rounds of a YAML file.

    Raises:
        RecipeError: With all problems of the file and of the recipes that it names.
    """
    document, _ = read_document(path, overrides, start="'rounds:' and 'output:'")

    def resolve(rounds: RoundsRecipe) -> RoundsRecipe:
        names = ("start", "make", "train")
        return rounds.model_copy(
            update={name: resolved(getattr(rounds, name), path.parent) for name in names}
        )

    rounds = check_valid(document, RoundsRecipe, resolve, [])
    problems = []
    for name, load in (("make", _making), ("train", _training)):
        try:
            load(rounds, 1, rounds.start)
        except RecipeError as error:
            problems += [
                Problem(f"{name}: {problem.where}", problem.message, problem.remedy)
                for problem in error.problems
            ]
    if problems:
        raise RecipeError(problems)
    return rounds


def run_rounds(
    rounds: RoundsRecipe, print_line: Callable[[str], None] = lambda line: None
) -> list[Round]:
    """Run all rounds, or continue them; return those that are finished.

    Args:
        rounds: The recipe.
        print_line: Called with a line about each stage that starts.

    Raises:
        UniDPOError: If a stage cannot be finished; the same call continues.
    """
    finished: list[Round] = []
    model = rounds.start
    for number in range(1, rounds.rounds + 1):
        current = _finished(rounds, number) or _run_round(rounds, number, model, print_line)
        finished.append(current)
        model = str(current.model)
        if reason := _reason_to_stop(rounds, finished):
            logger.warning("no further round: %s", reason)
            break
    return finished


def round_directory(rounds: RoundsRecipe, number: int) -> Path:
    """Return the directory of a round."""
    return Path(rounds.output) / f"round-{number}"


def _run_round(
    rounds: RoundsRecipe, number: int, model: str, print_line: Callable[[str], None]
) -> Round:
    from accelerate.utils import release_memory

    from ..distributed.processes import processes
    from ..training.run import finished_run, train_from_recipe

    folder = round_directory(rounds, number)
    making = _making(rounds, number, model)
    print_line(f"Round {number} of {rounds.rounds}: sampling and scoring with {model}")
    made = make(making)
    if processes().is_main_process:
        write_files(making, made)
    numbers = _sampling_numbers(making, made)
    _write_replay(rounds, number, len(made.rows))
    release_memory()
    recipe = _training(rounds, number, model, ALL_CHECKS)
    print_line(f"Round {number} of {rounds.rounds}: training on {len(made.rows):,} rows")
    if finished_run(recipe) is None:
        train_from_recipe(recipe)
        release_memory()
    state = processes()
    if state.is_main_process:  # the only one that knows the pairs
        numbers |= _held_out_numbers(folder / "train")
        write_text(folder / RECORD, json.dumps({"numbers": numbers}, indent=2) + "\n")
    state.wait_for_everyone()
    current = _finished(rounds, number)
    assert current is not None  # it has just been written
    return current


def _finished(rounds: RoundsRecipe, number: int) -> Round | None:
    folder = round_directory(rounds, number)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Round(number=number, model=folder / "train", numbers=record["numbers"])


# ---- the recipes of a round ----


def _making(rounds: RoundsRecipe, number: int, model: str) -> Making:
    folder = round_directory(rounds, number)
    making = load_make_recipe(
        Path(rounds.make),
        [f"output={_quoted(folder / 'made')}", f"model.name_or_path={_quoted(model)}"],
    )
    recipe = making.recipe
    if recipe.sample.server is not None or recipe.sample.batch_files is not None:
        text = "rounds sample from the model that they train, in this process"
        raise RecipeError(Problem("sample.server", text, "Remove it, or run the stages one by one"))
    if recipe.sample.responses == "given":
        text = "the responses of the sources do not change from round to round"
        raise RecipeError(Problem("sample.responses", text, "Set it to sampled or both"))
    sample = recipe.sample.model_copy(update={"seed": recipe.sample.seed + number - 1})
    prompts = recipe.prompts
    if prompts.part is None and rounds.rounds > 1:
        prompts = prompts.model_copy(update={"part": f"{number}/{rounds.rounds}"})
    changed = recipe.model_copy(update={"sample": sample, "prompts": prompts})
    return Making(changed, making.scorers, making.gates)


def _training(
    rounds: RoundsRecipe, number: int, model: str, checks: Sequence[Check] = ()
) -> Recipe:
    folder = round_directory(rounds, number)
    overrides = [
        f"model.name_or_path={_quoted(model)}",
        f"train.output_dir={_quoted(folder / 'train')}",
        f"data.sources={json.dumps(_sources(rounds, number))}",
    ]
    adapter = is_adapter_directory(Path(model))
    if adapter:  # the adapter of the round before is trained further
        overrides.append("model.lora=null")
    if rounds.reference == "start" and number > 1:
        if not adapter:
            text = "without a LoRA adapter, the model of the first round is no longer in memory"
            remedy = "Set model.lora in the recipe, or reference: previous"
            raise RecipeError(Problem("reference", text, remedy))
        overrides.append("train.reference=lora_off")
    return load_recipe(rounds.train, overrides, checks=checks)


def _sources(rounds: RoundsRecipe, number: int) -> list[dict[str, Any]]:
    folder = round_directory(rounds, number)
    rows = folder / "made" / "rows.jsonl"
    sources = [{"path": str(rows.absolute()), "name": f"round-{number}"}]
    replayed = folder / "replay.jsonl"
    if replayed.exists():
        sources.append({"path": str(replayed.absolute()), "name": "replay"})
    return sources


def _quoted(value: Any) -> str:
    return json.dumps(str(value))


# ---- rows of earlier rounds ----


def _write_replay(rounds: RoundsRecipe, number: int, rows: int) -> None:
    """Write the rows of earlier rounds that this round trains on again, drawn at random."""
    from ..config import SourceOptions
    from ..data.convert import write_rows
    from ..data.load import load_rows
    from ..distributed.processes import processes

    target = round_directory(rounds, number) / "replay.jsonl"
    state = processes()
    if rounds.replay and number > 1 and not target.exists() and state.is_main_process:
        paths = [round_directory(rounds, n) / "made" / "rows.jsonl" for n in range(1, number)]
        earlier = list(
            load_rows(
                [SourceOptions(path=str(p), name=f"round-{n}") for n, p in enumerate(paths, 1)]
            )
        )
        draw = random.Random(f"{rounds.seed}/{number}")
        count = min(round(rounds.replay * rows), len(earlier))
        kept = sorted(draw.sample(range(len(earlier)), count))
        if kept:
            temporary = target.with_name("replay.partial.jsonl")
            write_rows([earlier[n] for n in kept], temporary, "native")
            temporary.rename(target)
    state.wait_for_everyone()


# ---- numbers ----


def _sampling_numbers(making: Making, made: Made) -> dict[str, float]:
    outcomes = made.funnel.counts.get("outcomes", {})
    paired, prompts = outcomes.get(WITH_PAIRS, 0), sum(outcomes.values())
    length = length_of(made.responses.values())
    lengths = [length(record) for record in made.responses.values() if record["response"]]
    records = made.scores[str(making.recipe.pair_score)].done.values()
    scores = [record["score"] for record in records if record["score"] is not None]
    return {
        "share of prompts with pairs": paired / max(prompts, 1),
        "mean length": fmean(lengths) if lengths else 0.0,
        "mean score": fmean(scores) if scores else 0.0,
    }


def _held_out_numbers(folder: Path) -> dict[str, float]:
    """Return the last metrics of held-out pairs from the state of a run."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    last: dict[str, float] = {}
    for entry in state["log_history"]:
        last |= {
            title: entry[f"eval_{name}"]
            for name, title in METRICS.items()
            if f"eval_{name}" in entry
        }
    return last


def _reason_to_stop(rounds: RoundsRecipe, finished: Sequence[Round]) -> str | None:
    first, last = finished[0].numbers, finished[-1].numbers
    stop = rounds.stop
    pairs = last["share of prompts with pairs"]
    if pairs < stop.yield_below:
        return f"only {pairs:.0%} of the prompts have pairs (stop.yield_below)"
    growth = last["mean length"] / max(first["mean length"], 1e-9)
    if stop.length_growth_above is not None and growth > stop.length_growth_above:
        return f"responses are {growth:.2g} times as long (stop.length_growth_above)"
    change = last.get("chosen log-prob change")
    limit = stop.chosen_logp_drop_above
    if limit is not None and change is not None and -change > limit:
        return f"chosen responses lost {-change:.3g} nats per token (stop.chosen_logp_drop_above)"
    return None
