"""Check data: read the sources, encode and inspect their rows, and build a report."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy

from ..config import LoraOptions, SourceOptions
from ..config.python import UniDPOConfig
from ..data.load import DataFiles
from ..data.measure import MeasuredRow
from ..data.row_table import columns_of, concatenated, table_of, take_rows
from ..data.stream_sources import is_stream
from ..errors import Problem, RowTooLong, counted
from ..modeling.load import ModelSource, load_family_and_adapter
from ..records import FrameSampling, PreferenceRow
from ..training.configured_loss import configured_loss
from ..training.prepare import prepare
from ..training.startup_checks import score_warnings
from .examples import example_rows
from .images import MediaInspection, inspect_media
from .lengths import character_lengths, length_report, margins_by_length
from .numbers import evenly_spaced, optional_summary
from .overlap import overlap
from .report import CheckReport, LengthReport, OverlapReport, SourceSummary, StartWeights
from .weights import sampled, score_reports, start_weights

__all__ = ["CheckOptions", "check_data", "writable_rows"]

MAX_POINTS = 1500
"""Maximum number of pairs in the chart of margins by length."""
BALANCED = (0.35, 0.65)
"""Range of the share of pairs whose chosen response is longer that causes no warning."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of a data check.

    Attributes:
        args: Options of the run that will use the data.
        any_loss: Whether no loss was chosen; if one was, missing scores are problems.
        model: Directory or hub name of a model; `None` to skip the initial weights of pairs.
        processor: Directory or hub name of a model whose processor and chat template encode the
            rows; `None` for `model`. Without either, rows are not encoded and lengths are in
            characters.
        lora: Options of a new LoRA adapter, whose parts are checked; `None` if there is none.
        sample: Number of rows on which the model is run; 0 to skip.
        examples: Number of example rows in the report.
    """

    args: UniDPOConfig = field(
        default_factory=functools.partial(UniDPOConfig, output_dir="unused", report_to="none")
    )
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


def writable_rows(
    rows: Sequence[PreferenceRow], options: CheckOptions
) -> tuple[list[PreferenceRow], list[Problem], dict[int, list[Problem]]]:
    """Return the rows that can be written: those whose images and videos are valid.

    Returns:
        The rows, the problems of all other rows, and index of a returned row -> its problems, such
        as missing scores or pairs. As in `data check`, these problems depend on the loss.
    """
    inspection = inspect_media(rows, _sampling(options.args))
    intact = [row for number, row in enumerate(rows) if number not in inspection.broken]
    loss = configured_loss(options.args)
    # the output is a single source: if one row has scores, all rows need them
    scored = any(response.score is not None for row in intact for response in row.responses)
    if options.any_loss and not scored:
        return intact, inspection.problems, {}
    problems_by_row = {number: loss.check_rows([row]) for number, row in enumerate(intact)}
    missing = {number: problems for number, problems in problems_by_row.items() if problems}
    return intact, inspection.problems, missing


class _Check:
    """A check in progress, with the rows that `prepare` returned and notes about them."""

    def __init__(
        self, options: CheckOptions, training: DataFiles, held_out: DataFiles | None
    ) -> None:
        self.options, self.args = options, options.args
        self.training, self.held_out = training, held_out or DataFiles(sources=())
        loss = configured_loss(self.args)
        name = options.model or options.processor
        self.prepared = prepare(
            training,
            self.held_out,
            self.args,
            loss,
            functools.partial(load_family_and_adapter, name, self.args) if name else None,
            lora=options.lora,
            any_loss=options.any_loss,
            measure=True,
        )
        self.rows, self.eval_rows = self.prepared.training.rows, self.prepared.loaded_eval_rows
        self.loss = loss.with_medians(self.rows, lenient=True)
        self.problems = self.prepared.problems
        self.notes: list[str] = []

    def report(self) -> CheckReport:
        all_rows = concatenated([self.rows, self.eval_rows])  # rows on disk stay there
        columns = columns_of(self.rows)
        if is_stream(self.training):
            first = counted(len(self.rows), "row")
            text = f"the training data are streamed, so only the first {first} were checked"
            self.notes.append(text)
        if self.options.any_loss:
            self._note_unscored(all_rows)
        inspection = inspect_media(all_rows, _sampling(self.args))
        counts = self.prepared.preflight
        if counts is None:
            self._note_media(inspection, len(all_rows))
        elif counts.unreadable and not self.problems:
            self._note_skipped(len(counts.skipped) - counts.too_long, counts.unreadable[0])
        intact = [n for n in range(len(self.rows)) if n not in inspection.broken]
        rows = take_rows(self.rows, intact)
        if counts is None:
            unit, lengths = "characters", character_lengths(rows)
        else:
            unit, lengths = "tokens", [counts.measured[n] for n in intact]
        limited = counts is not None and self.args.max_length is not None
        drop = limited and self.args.length_policy == "drop"
        weights = self._weights(rows, lengths)
        media = [inspection.keys_of(row) for row in all_rows]
        prompts = table_of(self.rows).keys("prompt")
        keys = [(prompts[n], media[n]) for n in intact]
        summary = length_report(rows, lengths, keys, unit=unit, limited=limited, drop=drop)
        repeated = overlap(self.rows, self.eval_rows, media)
        image_tokens = optional_summary([row.images for row in lengths if row.images])
        video_tokens = optional_summary([row.videos for row in lengths if row.videos])
        scored = [point for point in margins_by_length(rows, lengths) if not math.isnan(point[1])]
        sources = self._sources()
        return CheckReport(
            sources=sources,
            domains=dict(Counter(columns.domain_names[code] for code in columns.domain.tolist())),
            rows=len(self.rows),
            pairs=int(columns.pairs.sum()),
            labels=len(columns.labels.values),
            responses=int(columns.responses.sum()),
            prompts=len(set(keys)) if counts is None else counts.prompts,
            pairs_per_prompt=_pairs_per_prompt(columns.pairs[intact].tolist(), keys),
            lengths=summary,
            scores=score_reports(self.rows, self.loss) if hasattr(self.loss.config, "eta") else (),
            images=dataclasses.replace(inspection.images, tokens=image_tokens),
            videos=dataclasses.replace(inspection.videos, tokens=video_tokens),
            overlap=repeated,
            weights=weights,
            margin_by_length=evenly_spaced(scored, MAX_POINTS),
            warnings=[
                *self.notes,
                *self._score_warnings(sources),
                *_length_warnings(summary),
                *_overlap_warnings(repeated),
                *_policy_warnings(lengths, drop=drop),
            ],
            problems=tuple(dict.fromkeys(self.problems)),
            model=self.options.model,
            examples=example_rows(rows, self.options.examples),
        )

    def _note_unscored(self, rows: Sequence[PreferenceRow]) -> None:
        """Add a note for each source of pairs without scores, which only some losses need."""
        labels = columns_of(rows).labels.lengths
        rows = take_rows(rows, numpy.flatnonzero(labels == 0).tolist())
        columns = columns_of(rows)
        rows_with_scores = columns.scores.owners[~numpy.isnan(columns.scores.values)]
        names, codes = columns.source_names, set(columns.source[rows_with_scores].tolist())
        scored = {names[code] for code in codes}
        self.notes += [
            f"source '{name}': there are no scores; set scores.missing for uni_dpo, or use a loss "
            "without scores such as dpo or simpo"
            for name in sorted({*columns.sources} - scored)
        ]

    def _note_media(self, inspection: MediaInspection, rows: int) -> None:
        """Report images and videos that cannot be opened, if rows were not encoded."""
        if not inspection.broken:
            return
        if len(inspection.broken) > self.args.max_skipped_fraction * rows:
            self.problems += inspection.problems
        else:
            self._note_skipped(len(inspection.broken), inspection.problems[0])

    def _note_skipped(self, rows: int, first: Problem) -> None:
        has_videos = columns_of(self.rows).videos.any() or columns_of(self.eval_rows).videos.any()
        media = "images or videos" if has_videos else "images"
        text = f"{counted(rows, 'row')} would be skipped because of {media} that cannot be used"
        self.notes.append(f"{text}; the first is {first.where}")

    def _weights(
        self, rows: Sequence[PreferenceRow], lengths: Sequence[MeasuredRow]
    ) -> StartWeights | None:
        """Return the initial weights of pairs according to the model, if there is one."""
        model, family, adapter = self.options.model, self.prepared.family, self.prepared.adapter
        if model is None or family is None or adapter is None:
            return None
        pairs = columns_of(rows).pairs.tolist()
        fitting = [n for n, measured in enumerate(lengths) if measured.responses and pairs[n]]
        sample = [rows[n] for n in sampled(fitting, self.options.sample)]
        if not sample or not hasattr(self.loss.config, "tau_ref"):
            return None
        return start_weights(sample, ModelSource.of(model, self.args), family, adapter, self.loss)

    def _sources(self) -> list[SourceSummary]:
        parts = [(self.training, self.prepared.training, False)]
        parts += [(self.held_out, loaded, True) for loaded in self.prepared.evaluation.values()]
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
            for files, loaded, evaluation in parts
            for file, report in zip(files.sources, loaded.reports, strict=True)
        ]

    def _score_warnings(self, sources: Sequence[SourceSummary]) -> list[str]:
        declared = {
            source.name: self.args.score_scale or source.scale
            for source in sources
            if source.scale and not source.evaluation
        }
        notes = [f"source '{source.name}': {note}" for source in sources for note in source.notes]
        return [*score_warnings(self.rows, self.loss, declared), *notes]


def _sampling(args: UniDPOConfig) -> FrameSampling:
    """Return how a run samples frames of videos; a model may take another number."""
    return FrameSampling(args.video_fps, args.video_max_frames)


def _overlap_warnings(repeated: OverlapReport) -> list[str]:
    warnings = []
    if repeated.duplicates:
        warnings.append(
            f"{counted(repeated.duplicates, 'row has', 'rows have')} the same content as an "
            f"earlier one; the first is {repeated.first_duplicates[0][0]}"
        )
    if repeated.contradictions:
        warnings.append(
            f"{counted(repeated.contradictions, 'pair contradicts', 'pairs contradict')} "
            "another pair of the same prompt"
        )
    if repeated.first_shared:
        warnings.append(
            f"{counted(repeated.shared_prompts, 'held-out row shares', 'held-out rows share')} "
            "a prompt with training rows, and "
            f"{counted(repeated.shared_images, 'shares', 'share')} an image or a video; the first "
            f"is {repeated.first_shared[0]}"
        )
    return warnings


def _length_warnings(lengths: LengthReport | None) -> list[str]:
    if lengths is None or not lengths.pairs or lengths.equal == 1:
        return []
    low, high = BALANCED
    share = lengths.chosen_longer / (1 - lengths.equal)
    if low <= share <= high:
        return []
    length = "longer" if share > 0.5 else "shorter"
    percent = 100 * max(share, 1 - share)
    return [
        f"the {length} response is chosen in {percent:.0f} % of the pairs that differ in length"
    ]


def _policy_warnings(lengths: Sequence[MeasuredRow], *, drop: bool) -> list[str]:
    """Return warnings about rows that the length policy changes and pairs without effect."""
    identical = sum(row.identical for row in lengths)
    verb = "has" if identical == 1 else "have"
    no_effect = f"{verb} two responses with the same tokens and {verb} no effect"
    dropped = sum(drop and row.kind is RowTooLong for row in lengths)
    counts = (
        (sum(row.truncated for row in lengths), "response", "would be truncated to fit max_length"),
        (sum(row.shrunk for row in lengths), "image", "would be scaled down to fit max_length"),
        (
            sum(row.shortened for row in lengths),
            "video",
            "would have fewer or smaller frames to fit max_length",
        ),
        (identical, "pair", no_effect),
        (dropped, "row", "would be dropped: longer than max_length"),
    )
    return [f"{counted(number, noun)} {text}" for number, noun, text in counts if number]


def _is_of(problem: Problem, file: SourceOptions) -> bool:
    """Return whether a problem is in a file, whose path may be a prefix of another path."""
    rest = problem.where.removeprefix(file.path)
    return rest != problem.where and rest[:1] in ("", " ", ",", "/")


def _pairs_per_prompt(pairs: Sequence[int], keys: Sequence[Hashable]) -> dict[int, int]:
    """Return number of pairs -> number of prompts.

    Args:
        pairs: Number of pairs of each row.
        keys: Key of the prompt of each row.
    """
    by_prompt: Counter[Hashable] = Counter()
    for key, count in zip(keys, pairs, strict=True):
        by_prompt[key] += count
    return dict(sorted(Counter(by_prompt.values()).items()))
