"""Run the stages of a recipe: prompts, responses, scores and pairs.

The state of a data set in the making are its files. So a stage that is finished is not repeated,
and one that was interrupted continues.
"""

import dataclasses
import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic import replacement
from ..errors import DataError, Problem, RecipeError, counted
from .files import Files, ScoreFile, Share, given_id, sampled_id
from .funnel import Funnel
from .load import Making
from .pairs import MadeRow, PairStage, form_rows, row_lines
from .prompt_set import MadePrompt, Prompts
from .prompts import GOLD_COLUMNS, read_prompts, write_prompts
from .recipe import STAGES, Stage
from .scoring import Group, ScoringRun, check_scorers, score_all
from .timing import Timing

__all__ = ["Made", "make"]

Progress = Callable[[str, int, int], None]


@dataclass(kw_only=True)
class Made:
    """The result of a run.

    Attributes:
        files: The paths.
        funnel: What became of every prompt, response and pair.
        rows: The rows with pairs; empty if an earlier stage was the last one.
        prompts: The prompts.
        timing: How long the stages took.
        responses: Id -> record of a response.
        scores: The files of scores.
        stage: The last stage that was run.
    """

    files: Files
    funnel: Funnel
    prompts: Prompts
    timing: Timing
    stage: Stage
    rows: Sequence[MadeRow] = ()
    responses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scores: Mapping[str, ScoreFile] = field(default_factory=dict)


def make(
    making: Making,
    *,
    until: Stage = "pair",
    pilot: int | None = None,
    share: Share | None = None,
    on_progress: Progress = lambda name, count, total: None,
) -> Made:
    """Make a data set, up to a stage.

    Args:
        making: The recipe.
        until: The last stage to run.
        pilot: Number of prompts to use, in a directory of their own; `None` for all.
        share: The share of this process; `None` for that of its rank.
        on_progress: Called with the name of a stage or score, the number of newly finished
            responses, and that of all.

    Raises:
        UniDPOError: If a stage cannot be finished; what is finished stays.
    """
    share = share or Share.of_processes()
    recipe = making.recipe
    files = Files.of(recipe.directory, pilot)
    _create(files.directory)
    timing = Timing(files.timing, processes=share.count, saves=share.index == 0)
    with timing.stage("prompts", repeated=True) as watch:
        prompts = prompts_of(making, pilot, until=until)
        if share.index == 0:
            _write_prompts(making, files, prompts)
        watch.add(len(prompts.items))
    made = Made(files=files, funnel=prompts.funnel, prompts=prompts, timing=timing, stage=until)
    stages = STAGES[: STAGES.index(until) + 1]
    if "score" in stages and share.merges:  # before hours of sampling
        check_scorers(making)
    if "sample" in stages:
        responses = respond(making, made, share, on_progress)
        if responses is None:
            return dataclasses.replace(made, stage="sample")
        made.responses = responses
    groups = groups_of(making, prompts.items)
    if "score" in stages:
        scoring = ScoringRun(
            making=making,
            files=files,
            groups=groups,
            texts=made.responses,
            fingerprint=fingerprint(prompts, making),
            share=share,
            timing=timing,
            on_progress=on_progress,
        )
        made.scores = score_all(scoring)
    if "pair" in stages and share.merges and share.index == 0:
        with timing.stage("pair", repeated=True) as watch:
            _pair(making, made, groups)
            watch.add(len(prompts.items))
    return made


def _create(directory: Path) -> None:
    """Create the directory of a data set.

    Raises:
        RecipeError: If that is impossible.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"the directory '{directory}' cannot be created ({error.strerror})"
        raise RecipeError(Problem("output", text, "Use another directory")) from error


def prompts_of(making: Making, pilot: int | None = None, *, until: Stage = "pair") -> Prompts:
    """Return the prompts of a recipe, with which all stages up to `until` are possible.

    Args:
        making: The recipe.
        pilot: Number of prompts to use; `None` for all.
        until: The last stage to run.

    Raises:
        DataError: With all problems of the sources, or of the scorers that need right answers which
            prompts lack.
    """
    prompts = read_prompts(making.recipe.prompts, making.recipe.sample, pilot)
    if STAGES.index(until) >= STAGES.index("score"):
        problems = list(_gold_problems(making, prompts.items))
        if problems:
            raise DataError(problems)
    return prompts


def _gold_problems(making: Making, prompts: Sequence[MadePrompt]) -> Iterator[Problem]:
    """Yield a problem for each scorer that needs a right answer which prompts lack."""
    missing = [prompt for prompt in prompts if not (prompt.gold or "").strip()]
    for name, scorer in making.scorers.items():
        if missing and "gold" in scorer.needs:
            text = (
                f"the scorer compares with right answers, and {len(missing):,} of "
                f"{counted(len(prompts), 'prompt')} have none, for example {missing[0].row.where}"
            )
            columns = ", ".join(GOLD_COLUMNS)
            remedy = (
                f"Add a column {columns}, set prompts.gold to the name of the column with them, or "
                "remove these prompts"
            )
            yield Problem(f"score.{name}", text, remedy)


def _write_prompts(making: Making, files: Files, prompts: Prompts) -> None:
    write_lines(files.prompts, write_prompts(prompts.items, files.prompts))
    if making.recipe.prompts.keep_out is not None:
        write_lines(files.leaks, (f"{json.dumps(leak)}\n" for leak in prompts.leaks))


def _pair(making: Making, made: Made, groups: Sequence[Group]) -> None:
    """Form the rows and write them.

    Raises:
        DataError: If no pair is left.
    """
    stage = PairStage(
        making=making,
        prompts=made.prompts.items,
        groups=groups,
        texts=made.responses,
        scores={name: store.done for name, store in made.scores.items()},
        funnel=made.funnel,
    )
    made.rows = form_rows(stage)
    made.funnel.check()
    if not made.rows:
        text = f"no pair is left; the largest loss: {made.funnel.largest_loss()}"
        text += _first_fault(made.responses)
        raise DataError(Problem("pair", text, "See the counts, and change rule, limits or n"))
    write_lines(made.files.rows, row_lines(made.rows, made.files))


def _first_fault(responses: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an example of a response that was not generated; empty if there is none."""
    for record in responses.values():
        if message := record.get("message", record.get("error")):
            return f". For example, '{record['id']}' was not generated: {message}"
    return ""


def respond(
    making: Making, made: Made, share: Share, on_progress: Progress
) -> Mapping[str, Mapping[str, Any]] | None:
    """Return the responses by id: those of the sources, and those that are sampled.

    It is `None` if other shares of them are missing, or have not been merged yet.
    """
    sample, prompts = making.recipe.sample, made.prompts
    of_sources = {} if sample.responses == "sampled" else given_responses(prompts.items)
    if sample.responses == "given":
        return of_sources
    from .sampling import sample_all

    store = sample_all(making, made.files, prompts, share, on_progress, made.timing)
    if not (share.merges or store.finished):
        return None
    sampled = store.done
    return ChainMap(of_sources, sampled) if of_sources else sampled  # type: ignore[arg-type] # both are read only


def fingerprint(prompts: Prompts, making: Making) -> str:
    """Return a hash of what the responses depend on, except their number."""
    if making.recipe.sample.responses == "given":
        return prompts.fingerprint
    from .sampling import sampling_fingerprint

    return sampling_fingerprint(prompts, making)


def given_responses(prompts: Iterable[MadePrompt]) -> dict[str, dict[str, Any]]:
    """Return the responses of the sources by id."""
    return {
        given_id(prompt.id, number): {
            "id": given_id(prompt.id, number),
            "response": response.text,
        }
        for prompt in prompts
        for number, response in enumerate(prompt.source_responses)
    }


def groups_of(making: Making, prompts: Iterable[MadePrompt]) -> list[Group]:
    """Return the prompts with the ids of their responses, those of the sources first."""
    sample = making.recipe.sample
    groups = []
    for prompt in prompts:
        ids: list[str] = []
        if sample.responses != "sampled":
            ids += [given_id(prompt.id, n) for n in range(len(prompt.source_responses))]
        if sample.responses != "given":
            ids += [sampled_id(prompt.id, n) for n in range(sample.n)]
        groups.append(Group(prompt.question, prompt.gold, tuple(ids)))
    return groups


def write_lines(path: Any, lines: Iterable[str]) -> int:
    """Replace a file by lines in one step; return their number."""
    count = 0
    with replacement(path) as stream:
        for line in lines:
            stream.write(line.encode("utf-8", "backslashreplace"))
            count += 1
    return count
