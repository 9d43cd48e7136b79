"""Examine the rows of a run, for `train`, its dry run and `data check`.

All three read sources with `read_run_files` and examine rows with `examine_rows`, so that they
accept the same rows and report the same problems in the same words.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..adapter import Adapter, AdapterFamily
from ..data.load import Loaded, SourceFile, read_sources
from ..data.preflight import Preflight, survey
from ..data.scores import zero_weight_problems
from ..errors import Problem, UniDPOError
from ..modeling.lora_targets import RECIPE_KEYS
from ..modeling.parts import LoraSettings, check_lora_parts, check_parts
from ..records import PreferenceRow
from .config import UniDPOConfig
from .configured_loss import ConfiguredLoss
from .optimizer import check_learning_rates

__all__ = [
    "NO_ROW",
    "Examination",
    "examine_rows",
    "look_at_rows",
    "loss_problems",
    "part_problems",
    "read_run_files",
    "scale_problems",
    "usual_problems",
]

NO_ROW = Problem("data.sources", "there is no row to train on", "Use rows that make pairs")
"""The problem of a run whose sources contain no usable row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
    """The result of examining rows.

    Attributes:
        problems: All problems for which a run is refused.
        preflight: Counts from the check of all rows; `None` if it is off.
    """

    problems: list[Problem]
    preflight: Preflight | None


def part_problems(args: UniDPOConfig, lora: Any, family: AdapterFamily) -> list[Problem]:
    """Return a problem for each setting with a part that the model's family does not have.

    Args:
        args: Settings of the run.
        lora: Settings of a new LoRA adapter, or `None`.
        family: The model family, which has the parts.
    """
    problems: list[Problem] = []
    checks: list[Callable[[], None]] = [
        lambda: check_learning_rates(args.learning_rates or {}, family),
        lambda: check_parts(args.freeze or (), family, RECIPE_KEYS.freeze),
    ]
    if isinstance(lora, LoraSettings):
        checks.append(lambda: check_lora_parts(lora, family, args.freeze))
    for check in checks:
        try:
            check()
        except UniDPOError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems


def read_run_files(
    sources: Sequence[SourceFile],
    held_out: Sequence[SourceFile],
    settings: ConfiguredLoss | None,
    score_scale: tuple[float, float] | None,
) -> tuple[Loaded, Loaded]:
    """Read the training and the evaluation sources of a run.

    Args:
        sources: Sources of training rows.
        held_out: Sources of evaluation rows.
        settings: The loss, which may need a score for every response; `None` if none was chosen.
        score_scale: The common scale of all scores.
    """
    if settings is not None:
        sources, held_out = (
            [
                dataclasses.replace(file, needs_scores=settings.needs_scores(file.source_name))
                for file in files
            ]
            for files in (sources, held_out)
        )
    training, evaluation = (
        read_sources(files, score_scale=score_scale) for files in (sources, held_out)
    )
    training.problems.extend(scale_problems(training.rows, score_scale))
    evaluation.problems.extend(scale_problems(evaluation.rows, score_scale))
    return training, evaluation


def scale_problems(
    rows: Sequence[PreferenceRow],
    score_scale: Sequence[float] | None,
    *,
    key: str = "data.score_scale",
) -> list[Problem]:
    """Return a problem for each source whose scores are all outside the scale of the run.

    Args:
        rows: Rows with scores on the scale of the run.
        score_scale: The lowest and the highest score; `None` if no scale is declared.
        key: Name of the setting.
    """
    if score_scale is None:
        return []
    low, high = score_scale
    by_source: dict[str, list[float]] = {}
    for row in rows:
        scores = [item.score for item in row.responses if item.score is not None]
        by_source.setdefault(row.source, []).extend(scores)
    problems = []
    for source, scores in by_source.items():
        if scores and not any(low <= score <= high for score in scores):
            text = (
                f"no score of source '{source}' lies in [{low:g}, {high:g}]: they run from "
                f"{min(scores):g} to {max(scores):g}"
            )
            remedy = "Correct it, or set scores.scale of that source, from which scores are mapped"
            problems.append(Problem(key, text, remedy))
    return problems


def examine_rows(
    train_rows: Sequence[PreferenceRow],
    eval_rows: Sequence[PreferenceRow],
    args: UniDPOConfig,
    settings: ConfiguredLoss,
    adapter: Adapter,
) -> Examination:
    """Check rows against the loss, encode them and open their images.

    Args:
        train_rows: The training rows.
        eval_rows: The evaluation rows.
        args: Settings of the run.
        settings: The loss.
        adapter: Encodes the rows.
    """
    result = look_at_rows(train_rows, eval_rows, args, adapter)
    problems = [*loss_problems(train_rows, eval_rows, settings), *result.problems]
    return Examination(problems=problems, preflight=result.preflight)


def loss_problems(
    train_rows: Sequence[PreferenceRow],
    eval_rows: Sequence[PreferenceRow],
    settings: ConfiguredLoss,
) -> list[Problem]:
    """Return a problem for each row that lacks the pairs, scores or weights that the loss needs."""
    problems = settings.check_sources([*train_rows, *eval_rows])
    problems += [*settings.check_rows(train_rows), *zero_weight_problems(train_rows)]
    if settings.loss.unit == "pair":
        problems += settings.check_rows(eval_rows)
    return problems


def usual_problems(rows: Sequence[PreferenceRow], settings: ConfiguredLoss) -> list[Problem]:
    """Return the problems of rows with the default loss, if no loss was chosen.

    Sources without any score are accepted: other losses can use them.
    """
    scored = {row.source for row in rows if any(r.score is not None for r in row.responses)}
    return settings.check_rows([row for row in rows if row.source in scored])


def look_at_rows(
    train_rows: Sequence[PreferenceRow],
    eval_rows: Sequence[PreferenceRow],
    args: UniDPOConfig,
    adapter: Adapter,
    *,
    keep: bool = False,
) -> Examination:
    """Encode every row and open every image once.

    Args:
        train_rows: The training rows.
        eval_rows: The evaluation rows.
        args: Settings of the run.
        adapter: Encodes the rows.
        keep: Whether to keep the measurements of each row in `Preflight.measured`, and to check
            the rows even if `args.preflight` is off.
    """
    problems = []
    drop_long = args.length_policy == "drop"
    if not args.preflight:
        if drop_long or args.max_skipped_fraction > 0:
            text = "rows can only be skipped if all rows are checked before training"
            problems.append(Problem("data.preflight", text, "Set it to true (preflight=True)"))
        if not keep:
            return Examination(problems=problems, preflight=None)
    result, row_problems = survey(
        [*train_rows, *eval_rows],
        adapter,
        training=len(train_rows),
        workers=max(args.dataloader_num_workers, 0),
        drop_long=drop_long,
        max_skipped_fraction=args.max_skipped_fraction,
        keep=keep,
    )
    problems += row_problems
    skipped = sum(number < len(train_rows) for number in result.skipped)
    if not row_problems and train_rows and skipped == len(train_rows):
        remedy = "Raise max_length, or correct the images"
        text = f"every row is skipped ({result.reasons()})"
        problems.append(Problem("data", text, remedy))
    return Examination(problems=problems, preflight=result)
