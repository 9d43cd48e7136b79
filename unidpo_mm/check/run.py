"""Check data: read sources, encode and inspect their rows, and build the report."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapter import Adapter, AdapterFamily
from ..data.groups import prompt_key
from ..data.load import Loaded, SourceFile
from ..data.measure import MeasuredRow
from ..data.scores import zero_weight_problems
from ..errors import Problem, RecipeError, UniDPOError, counted
from ..records import PreferenceRow
from ..training.config import UniDPOConfig
from ..training.configured_loss import ConfiguredLoss, configure_loss
from ..training.examine import NO_ROW, look_at_rows, loss_problems, read_run_files, usual_problems
from ..training.references import loading_source
from ..training.score_warnings import score_warnings
from ..training.setup import load_family_and_adapter
from .examples import example_rows
from .images import ImageInspection, inspect_images
from .lengths import Lengths, character_lengths, length_report, margins_by_length, token_lengths
from .numbers import optional_summary
from .overlap import overlap
from .report import (
    CheckReport,
    ImageReport,
    LengthReport,
    OverlapReport,
    ScoreReport,
    SourceSummary,
    StartWeights,
)
from .scores import score_reports
from .weights import sampled, start_weights

__all__ = ["CheckSettings", "check_data"]

MAX_POINTS = 1500
"""Maximum number of pairs in the chart of margins by length."""
BALANCED = (0.35, 0.65)
"""Range of the share of longer chosen responses, outside of which there is a warning."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """Options of a data check.

    Attributes:
        score_scale: Scale of all scores.
        loss, loss_parameters, loss_by_source: As in a recipe.
        explicit_loss: Whether the user has chosen the loss; if so, missing scores are problems.
        max_skipped_fraction: Maximum share of rows skipped because of their images.
        model: Name of a model; `None` to skip the initial weights.
        processor: Name of a model whose processor and chat template encode the rows; `None` for
            `model`. Without either, rows are not encoded and lengths are in characters.
        part_check: Returns the problems of the parts that a recipe names; `None` to skip.
        arguments: Arguments of `UniDPOConfig` for rendering rows, such as max_length.
        sample: Number of rows on which the model is run; 0 to skip.
        examples: Number of example rows in the report.
    """

    score_scale: tuple[float, float] | None = None
    loss: str = "uni_dpo"
    loss_parameters: dict[str, Any] = field(default_factory=dict)
    loss_by_source: dict[str, dict[str, Any]] = field(default_factory=dict)
    explicit_loss: bool = False
    max_skipped_fraction: float = 0.0
    model: str | None = None
    processor: str | None = None
    part_check: Callable[[AdapterFamily], list[Problem]] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    sample: int = 64
    examples: int = 12


def check_data(
    sources: Sequence[SourceFile],
    settings: CheckSettings | None = None,
    *,
    held_out: Sequence[SourceFile] = (),
) -> CheckReport:
    """Check data and return the report.

    Args:
        sources: Sources of training data.
        settings: Options of the check.
        held_out: Sources of evaluation data.
    """
    check = _Check(settings or CheckSettings(), list(sources), list(held_out))
    return check.report()


class _Check:
    """A check in progress: its rows, problems and warnings."""

    def __init__(
        self, settings: CheckSettings, sources: list[SourceFile], held_out: list[SourceFile]
    ) -> None:
        self.settings = settings
        self.files = {False: sources, True: held_out}
        self.loss = configure_loss(settings.loss, settings.loss_parameters, settings.loss_by_source)
        training, evaluation = read_run_files(
            sources, held_out, self.loss if settings.explicit_loss else None, settings.score_scale
        )
        self.loaded: dict[bool, Loaded] = {False: training, True: evaluation}
        self.rows, self.eval_rows = training.rows, evaluation.rows
        self.problems = [*training.problems, *evaluation.problems]
        self.notes: list[str] = []
        self.prompts: int | None = None
        self.arguments: UniDPOConfig | None = None
        self.family: AdapterFamily | None = None
        self.adapter: Adapter | None = None

    def report(self) -> CheckReport:
        all_rows = [*self.rows, *self.eval_rows]
        if not self.problems and not self.rows:
            self.problems.append(NO_ROW)
        else:
            self.problems += self._load_adapter() or self._row_problems()
        inspection = inspect_images(all_rows)
        measured = self._measured() if self.adapter is not None else None
        if measured is None:
            self._note_images(inspection, len(all_rows))
        intact = [n for n in range(len(self.rows)) if n not in inspection.broken]
        rows = [self.rows[n] for n in intact]
        lengths = self._lengths(rows, None if measured is None else [measured[n] for n in intact])
        weights = self._weights(rows, lengths)
        keys = [prompt_key(row, inspection.keys_of(row)) for row in rows]
        length_summary = length_report(rows, lengths, keys)
        scores = self._scores()
        repeated = overlap(self.rows, self.eval_rows, [inspection.keys_of(row) for row in all_rows])
        return CheckReport(
            sources=self._sources(),
            domains=dict(Counter(row.domain for row in self.rows)),
            rows=len(self.rows),
            pairs=sum(len(row.pairs) for row in self.rows),
            responses=sum(len(row.responses) for row in self.rows),
            prompts=len(set(keys)) if self.prompts is None else self.prompts,
            pairs_per_prompt=_pairs_per_prompt(rows, keys),
            lengths=length_summary,
            scores=scores,
            images=_with_tokens(inspection, lengths),
            overlap=repeated,
            weights=weights,
            margin_by_length=_thinned(margins_by_length(rows, lengths)),
            warnings=[
                *self.notes,
                *self._warnings(length_summary, repeated),
                *_policy_warnings(lengths),
            ],
            problems=tuple(dict.fromkeys(self.problems)),
            model=self.settings.model,
            examples=example_rows(rows, self.settings.examples),
        )

    def _row_problems(self) -> list[Problem]:
        """Return the problems of rows for the loss.

        If the user has chosen no loss, sources without scores are noted instead, because losses
        other than the default do not need them.
        """
        if self.settings.explicit_loss:
            return loss_problems(self.rows, self.eval_rows, self.loss)
        rows = [*self.rows, *self.eval_rows]
        unscored = {row.source for row in rows} - {row.source for row in rows if _scored(row)}
        self.notes += [
            f"source '{name}': there are no scores; set scores.missing for uni_dpo, or use a loss "
            "without scores such as dpo or simpo"
            for name in sorted(unscored)
        ]
        return [*usual_problems(rows, self.loss), *zero_weight_problems(self.rows)]

    def _load_adapter(self) -> list[Problem]:
        """Load the processor that encodes the rows, if one is set.

        Returns:
            The problems of loading it, if some rows could not be read either; both are reported.

        Raises:
            UniDPOError: If it cannot be loaded, or the model does not have the parts of a recipe.
        """
        name = self.settings.model or self.settings.processor
        if name is None:
            return []
        options = {
            "max_skipped_fraction": self.settings.max_skipped_fraction,
            **self.settings.arguments,
        }
        arguments = UniDPOConfig(output_dir="unused", report_to="none", **options)
        try:
            self.family, self.adapter = load_family_and_adapter(name, arguments)
        except UniDPOError as error:
            if not self.problems:
                raise
            return list(error.problems)
        self.arguments = arguments
        if self.settings.part_check is not None and not self.problems:
            problems = self.settings.part_check(self.family)
            if problems:
                raise RecipeError(problems)
        return []

    def _measured(self) -> list[MeasuredRow]:
        """Encode all rows as a run does, and collect the rows that it would refuse or skip."""
        assert self.adapter is not None
        assert self.arguments is not None
        looked = look_at_rows(self.rows, self.eval_rows, self.arguments, self.adapter, keep=True)
        self.problems += looked.problems
        counts = looked.preflight
        assert counts is not None  # keep=True
        self.prompts = counts.prompts
        if counts.unreadable and not looked.problems:
            number = len(counts.skipped) - counts.too_long
            self._note_skipped(number, counts.unreadable[0])
        return counts.measured

    def _note_images(self, inspection: ImageInspection, rows: int) -> None:
        """Note images that cannot be opened, if rows were not encoded."""
        if not inspection.broken:
            return
        if len(inspection.broken) > self.settings.max_skipped_fraction * rows:
            self.problems += inspection.problems
        else:
            self._note_skipped(len(inspection.broken), inspection.problems[0])

    def _note_skipped(self, rows: int, first: Problem) -> None:
        text = f"{counted(rows, 'row')} would be skipped because of images that cannot be used"
        self.notes.append(f"{text}, the first is {first.where}")

    def _lengths(
        self, rows: Sequence[PreferenceRow], measured: Sequence[MeasuredRow] | None
    ) -> Lengths:
        if measured is None or self.arguments is None:
            return character_lengths(rows)
        return token_lengths(
            measured,
            limited=self.arguments.max_length is not None,
            drop=self.arguments.length_policy == "drop",
        )

    def _weights(self, rows: Sequence[PreferenceRow], lengths: Lengths) -> StartWeights | None:
        """Return the initial weights under the model, if one is set."""
        model = self.settings.model
        if model is None or self.family is None or self.adapter is None or self.arguments is None:
            return None
        fitting = [r for r, responses in zip(rows, lengths.responses, strict=True) if responses]
        sample = sampled(fitting, self.settings.sample)
        if not sample or not hasattr(self.loss.config, "tau_ref"):
            return None
        source = loading_source(model, self.arguments)
        return start_weights(sample, source, self.family, self.adapter, self._resolved())

    def _resolved(self) -> ConfiguredLoss:
        return self.loss.with_medians(self.rows, lenient=True)

    def _scores(self) -> Sequence[ScoreReport]:
        if not hasattr(self.loss.config, "eta"):
            return ()
        return score_reports(self.rows, self._resolved())

    def _sources(self) -> list[SourceSummary]:
        return [
            SourceSummary(
                name=file.source_name,
                path=file.path,
                judge=file.scores.judge,
                scale=file.scores.scale,
                records=report.records,
                rows=report.rows,
                problems=sum(_is_of(problem, file) for problem in dict.fromkeys(self.problems)),
                formats=dict(report.formats),
                unread=dict(report.unread),
                notes=report.sentences(),
                evaluation=evaluation,
            )
            for evaluation, files in self.files.items()
            for file, report in zip(files, self.loaded[evaluation].reports, strict=True)
        ]

    def _warnings(self, lengths: LengthReport | None, repeated: OverlapReport) -> list[str]:
        files = self.files[False]
        scale = self.settings.score_scale
        declared = {
            file.source_name: scale or file.scores.scale for file in files if file.scores.scale
        }
        warnings = score_warnings(self.rows, self._resolved(), declared)
        for source in self._sources():
            warnings += [f"source '{source.name}': {note}" for note in source.notes]
        if lengths is not None:
            warnings += _length_warnings(lengths)
        if repeated.duplicates:
            warnings.append(
                f"{counted(repeated.duplicates, 'row has', 'rows have')} the same content as an "
                f"earlier one, the first is {repeated.first_duplicates[0][0]}"
            )
        if repeated.contradictions:
            warnings.append(
                f"{counted(repeated.contradictions, 'pair contradicts', 'pairs contradict')} "
                "another pair of the same prompt"
            )
        if repeated.first_shared:
            warnings.append(
                f"{counted(repeated.shared_prompts, 'held-out row shares', 'held-out rows share')} "
                f"a prompt with training rows and {repeated.shared_images:,} an image, the first "
                f"is {repeated.first_shared[0]}"
            )
        return warnings


def _length_warnings(lengths: LengthReport) -> list[str]:
    low, high = BALANCED
    unequal = 1 - lengths.equal if lengths.pairs else 0.0
    share = lengths.chosen_longer / unequal if unequal else 0.5
    if low <= share <= high:
        return []
    length = "longer" if share > 0.5 else "shorter"
    percent = 100 * max(share, 1 - share)
    return [f"the {length} response is chosen in {percent:.0f} % of the pairs of unequal length"]


def _policy_warnings(lengths: Lengths) -> list[str]:
    """Return what the length policy would do."""
    verb = "has" if lengths.identical == 1 else "have"
    counts = (
        (lengths.truncated, "response", "would be truncated to fit max_length"),
        (lengths.shrunk, "image", "would be scaled down to fit max_length"),
        (
            lengths.identical,
            "pair",
            f"{verb} two responses with the same tokens and {verb} no effect",
        ),
        (lengths.dropped, "row", "would be dropped: longer than max_length"),
    )
    return [f"{counted(number, noun)} {text}" for number, noun, text in counts if number]


def _scored(row: PreferenceRow) -> bool:
    return any(response.score is not None for response in row.responses)


def _is_of(problem: Problem, file: SourceFile) -> bool:
    """Return whether a problem is one of a file, whose path may be a prefix of another."""
    rest = problem.where.removeprefix(file.path)
    return rest != problem.where and rest[:1] in ("", " ", ",", "/")


def _pairs_per_prompt(rows: Sequence[PreferenceRow], keys: Sequence[Hashable]) -> dict[int, int]:
    pairs: Counter[Hashable] = Counter()
    for row, key in zip(rows, keys, strict=True):
        pairs[key] += len(row.pairs)
    return dict(sorted(Counter(pairs.values()).items()))


def _with_tokens(inspection: ImageInspection, lengths: Lengths) -> ImageReport:
    tokens = optional_summary([number for number in lengths.images if number])
    return dataclasses.replace(inspection.report, tokens=tokens)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    scored = [point for point in points if point[1] == point[1]]
    step = max(len(scored) // MAX_POINTS, 1)
    return scored[::step][:MAX_POINTS]
