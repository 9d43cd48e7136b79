"""Check data: read sources, encode and inspect their rows, and build the report."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from ..config import LoraOptions, SourceOptions
from ..config.python import UniDPOConfig
from ..data.groups import prompt_key
from ..data.load import DataFiles, SourceReport
from ..data.measure import MeasuredRow
from ..errors import Problem, counted
from ..modeling.load import ModelSource, load_family_and_adapter
from ..records import PreferenceRow
from ..training.configured_loss import ConfiguredLoss, configured_loss
from ..training.prepare import prepare
from ..training.startup_checks import score_warnings
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

__all__ = ["CheckOptions", "check_data"]

MAX_POINTS = 1500
"""Maximum number of pairs in the chart of margins by length."""
BALANCED = (0.35, 0.65)
"""Range of the share of longer chosen responses, outside of which there is a warning."""


def _default_args() -> UniDPOConfig:
    return UniDPOConfig(output_dir="unused", report_to="none")


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of a data check.

    Attributes:
        args: Options of the run that the data are for.
        any_loss: Whether no loss was chosen; otherwise missing scores are problems.
        model: Name of a model; `None` to skip the initial weights.
        processor: Name of a model whose processor and chat template encode the rows; `None` for
            `model`. Without either, rows are not encoded and lengths are in characters.
        lora: Options of a new LoRA adapter, whose parts are checked; `None` if there is none.
        sample: Number of rows on which the model is run; 0 to skip.
        examples: Number of example rows in the report.
    """

    args: UniDPOConfig = field(default_factory=_default_args)
    any_loss: bool = False
    model: str | None = None
    processor: str | None = None
    lora: LoraOptions | None = None
    sample: int = 64
    examples: int = 12


def check_data(
    training: DataFiles,
    options: CheckOptions | None = None,
    *,
    held_out: DataFiles | None = None,
) -> CheckReport:
    """Check data and return the report.

    Args:
        training: Sources of training data.
        options: Options of the check.
        held_out: Sources of evaluation data.
    """
    return _Check(options or CheckOptions(any_loss=True), training, held_out).report()


class _Check:
    """A check in progress: the rows that `prepare` returns, and notes about them."""

    def __init__(
        self, options: CheckOptions, training: DataFiles, held_out: DataFiles | None
    ) -> None:
        self.options, self.args = options, options.args
        self.held_out = held_out or DataFiles(sources=())
        self.files = {False: training.sources, True: self.held_out.sources}
        self.loss = configured_loss(self.args)
        name = options.model or options.processor
        self.prepared = prepare(
            training,
            self.held_out,
            self.args,
            self.loss,
            functools.partial(load_family_and_adapter, name, self.args) if name else None,
            lora=options.lora,
            any_loss=options.any_loss,
            measure=True,
        )
        self.rows, self.eval_rows = self.prepared.training.rows, self.prepared.read_eval_rows
        self.problems = self.prepared.problems
        self.notes: list[str] = []

    def report(self) -> CheckReport:
        all_rows = [*self.rows, *self.eval_rows]
        if self.options.any_loss:
            self._note_unscored(all_rows)
        inspection = inspect_images(all_rows)
        counts = self.prepared.preflight
        measured = None if counts is None else counts.measured
        if counts is None:
            self._note_images(inspection, len(all_rows))
        elif counts.unreadable and not self.problems:
            self._note_skipped(len(counts.skipped) - counts.too_long, counts.unreadable[0])
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
            prompts=len(set(keys)) if counts is None else counts.prompts,
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
            model=self.options.model,
            examples=example_rows(rows, self.options.examples),
        )

    def _note_unscored(self, rows: Sequence[PreferenceRow]) -> None:
        """Note sources without scores: losses other than the default do not need them."""
        unscored = {row.source for row in rows} - {row.source for row in rows if _scored(row)}
        self.notes += [
            f"source '{name}': there are no scores; set scores.missing for uni_dpo, or use a loss "
            "without scores such as dpo or simpo"
            for name in sorted(unscored)
        ]

    def _note_images(self, inspection: ImageInspection, rows: int) -> None:
        """Note images that cannot be opened, if rows were not encoded."""
        if not inspection.broken:
            return
        if len(inspection.broken) > self.args.max_skipped_fraction * rows:
            self.problems += inspection.problems
        else:
            self._note_skipped(len(inspection.broken), inspection.problems[0])

    def _note_skipped(self, rows: int, first: Problem) -> None:
        text = f"{counted(rows, 'row')} would be skipped because of images that cannot be used"
        self.notes.append(f"{text}, the first is {first.where}")

    def _lengths(
        self, rows: Sequence[PreferenceRow], measured: Sequence[MeasuredRow] | None
    ) -> Lengths:
        if measured is None:
            return character_lengths(rows)
        return token_lengths(
            measured,
            limited=self.args.max_length is not None,
            drop=self.args.length_policy == "drop",
        )

    def _weights(self, rows: Sequence[PreferenceRow], lengths: Lengths) -> StartWeights | None:
        """Return the initial weights under the model, if one is set."""
        model, family, adapter = self.options.model, self.prepared.family, self.prepared.adapter
        if model is None or family is None or adapter is None:
            return None
        fitting = [r for r, responses in zip(rows, lengths.responses, strict=True) if responses]
        sample = sampled(fitting, self.options.sample)
        if not sample or not hasattr(self.loss.config, "tau_ref"):
            return None
        source = ModelSource.of(model, self.args)
        return start_weights(sample, source, family, adapter, self._resolved())

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
            for file, report in zip(files, self._reports(evaluation), strict=True)
        ]

    def _reports(self, evaluation: bool) -> Sequence[SourceReport]:
        loaded = self.prepared.evaluation[""] if evaluation else self.prepared.training
        return loaded.reports

    def _warnings(self, lengths: LengthReport | None, repeated: OverlapReport) -> list[str]:
        files = self.files[False]
        scale = self.args.score_scale
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


def _is_of(problem: Problem, file: SourceOptions) -> bool:
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
