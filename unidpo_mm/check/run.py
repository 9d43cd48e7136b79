"""Reads sources and looks at them from every side."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapter import Adapter, AdapterFamily
from ..data.groups import prompt_key
from ..data.load import Loaded, SourceFile
from ..data.measure import MeasuredRow
from ..data.scores import without_weight
from ..errors import Problem, RecipeError, UniDPOError, counted
from ..records import PreferenceRow
from ..training.config import UniDPOConfig
from ..training.configured_loss import ConfiguredLoss, configure_loss
from ..training.examine import NO_ROW, look_at_rows, loss_problems, read_run_files, usual_problems
from ..training.references import loading_source
from ..training.score_warnings import score_warnings
from ..training.setup import load_family_and_adapter
from .images import Seen, look_at_images
from .lengths import Lengths, character_lengths, length_report, margins_by_length, token_lengths
from .numbers import summary
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
from .shown import shown_rows
from .weights import sampled, start_weights

__all__ = ["CheckSettings", "check_data"]

POINTS = 1500
"""Pairs of the image of margins by lengths."""
LONGER_WINS = (0.35, 0.65)
"""Share of pairs whose chosen answer is longer, outside of which length gives the answer away."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What to check against.

    Attributes:
        score_scale: The unit of all scores.
        loss, loss_parameters, loss_by_source: As in a recipe.
        loss_named: The user chose the loss: sources without scores are then problems.
        max_skipped_fraction: Share of rows that may be left out for their images.
        model: A model by name; None to do without first weights.
        processor: A model whose processor and chat template encode the rows, so that what they
            refuse is a problem; None for `model`, and without one lengths are characters.
        part_check: Returns what is wrong with the parts that a recipe names; None without one.
        arguments: Arguments of `UniDPOConfig` that say how rows are rendered, such as max_length.
        sample: Rows that the model scores; 0 for none.
        workers: Processes that tokenise.
        shown: Rows on the page.
    """

    score_scale: tuple[float, float] | None = None
    loss: str = "uni_dpo"
    loss_parameters: dict[str, Any] = field(default_factory=dict)
    loss_by_source: dict[str, dict[str, Any]] = field(default_factory=dict)
    loss_named: bool = False
    max_skipped_fraction: float = 0.0
    model: str | None = None
    processor: str | None = None
    part_check: Callable[[AdapterFamily], list[Problem]] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    sample: int = 64
    workers: int = 0
    shown: int = 12


def check_data(
    sources: Sequence[SourceFile],
    settings: CheckSettings | None = None,
    *,
    held_out: Sequence[SourceFile] = (),
) -> CheckReport:
    """Return what is in data and what a run would make of it.

    Args:
        sources: What would be trained on.
        settings: What to check against.
        held_out: What would be evaluated on.
    """
    check = _Check(settings or CheckSettings(), list(sources), list(held_out))
    return check.report()


class _Check:
    """One check: rows, what is wrong with them, and the report."""

    def __init__(
        self, settings: CheckSettings, sources: list[SourceFile], held_out: list[SourceFile]
    ) -> None:
        self.settings = settings
        self.files = {False: sources, True: held_out}
        self.loss = configure_loss(settings.loss, settings.loss_parameters, settings.loss_by_source)
        training, evaluation = read_run_files(
            sources, held_out, self.loss if settings.loss_named else None, settings.score_scale
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
        everything = [*self.rows, *self.eval_rows]
        if not self.problems and not self.rows:
            self.problems.append(NO_ROW)
        else:
            self.problems += self._load_adapter() or self._row_problems()
        seen = look_at_images(everything)
        measured = self._measured() if self.adapter is not None else None
        if measured is None:
            self._note_images(seen, len(everything))
        whole = [n for n in range(len(self.rows)) if n not in seen.broken]
        rows = [self.rows[n] for n in whole]
        lengths = self._lengths(rows, None if measured is None else [measured[n] for n in whole])
        weights = self._weights(rows, lengths)
        keys = [prompt_key(row, seen.keys_of(row)) for row in rows]
        found = length_report(rows, lengths, keys)
        scores = self._scores()
        twice = overlap(self.rows, self.eval_rows, [seen.keys_of(row) for row in everything])
        return CheckReport(
            sources=self._sources(),
            domains=dict(Counter(row.domain for row in self.rows)),
            rows=len(self.rows),
            pairs=sum(len(row.pairs) for row in self.rows),
            responses=sum(len(row.responses) for row in self.rows),
            prompts=len(set(keys)) if self.prompts is None else self.prompts,
            pairs_per_prompt=_pairs_per_prompt(rows, keys),
            lengths=found,
            scores=scores,
            images=_with_tokens(seen, lengths),
            overlap=twice,
            weights=weights,
            margin_by_length=_thinned(margins_by_length(rows, lengths)),
            warnings=[*self.notes, *self._warnings(found, twice), *_about_policy(lengths)],
            problems=tuple(dict.fromkeys(self.problems)),
            model=self.settings.model,
            shown=shown_rows(rows, self.settings.shown),
        )

    def _row_problems(self) -> list[Problem]:
        """Return what the rows lack for the loss.

        If no loss was chosen, a source without a single score gets a sentence: other losses than
        the usual one can learn from it.
        """
        if self.settings.loss_named:
            return loss_problems(self.rows, self.eval_rows, self.loss)
        rows = [*self.rows, *self.eval_rows]
        bare = {row.source for row in rows} - {row.source for row in rows if _scored(row)}
        self.notes += [
            f"source '{name}': there are no scores; uni_dpo needs scores.missing, dpo and simpo do "
            "without"
            for name in sorted(bare)
        ]
        return [*usual_problems(rows, self.loss), *without_weight(self.rows)]

    def _load_adapter(self) -> list[Problem]:
        """Load the processor that encodes the rows, if one is named.

        Returns:
            Why it cannot be loaded, if some rows could not be read either: both are reported.

        Raises:
            UniDPOError: If it cannot be loaded, or a recipe names parts that the model lacks.
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
        """Encode all rows as a run does; note what it would refuse and skip."""
        assert self.adapter is not None
        assert self.arguments is not None
        looked = look_at_rows(self.rows, self.eval_rows, self.arguments, self.adapter, keep=True)
        self.problems += looked.problems
        found = looked.preflight
        assert found is not None  # the rows are kept
        self.prompts = found.prompts
        if found.unreadable and not looked.problems:
            number = len(found.left_out) - found.too_long
            self._note_skipped(number, found.unreadable[0])
        return found.measured

    def _note_images(self, seen: Seen, rows: int) -> None:
        """Note images that cannot be opened; nobody asked a processor."""
        if not seen.broken:
            return
        if len(seen.broken) > self.settings.max_skipped_fraction * rows:
            self.problems += seen.problems
        else:
            self._note_skipped(len(seen.broken), seen.problems[0])

    def _note_skipped(self, rows: int, first: Problem) -> None:
        text = f"{counted(rows, 'row')} would be left out for images that cannot be used"
        self.notes.append(f"{text}, the first: {first.where}")

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
        """Return the first weights under the model, if one is named."""
        model = self.settings.model
        if model is None or self.family is None or self.adapter is None or self.arguments is None:
            return None
        fitting = [r for r, answers in zip(rows, lengths.answers, strict=True) if answers]
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

    def _warnings(self, lengths: LengthReport | None, twice: OverlapReport) -> list[str]:
        files = self.files[False]
        scale = self.settings.score_scale
        declared = {
            file.source_name: scale or file.scores.scale for file in files if file.scores.scale
        }
        warnings = score_warnings(self.rows, self._resolved(), declared)
        for source in self._sources():
            warnings += [f"source '{source.name}': {note}" for note in source.notes]
        if lengths is not None:
            warnings += _about_length(lengths)
        if twice.duplicates:
            warnings.append(
                f"{counted(twice.duplicates, 'row equals', 'rows equal')} an earlier one in "
                f"prompt, images and answers, the first: {twice.first_duplicates[0][0]}"
            )
        if twice.contradictions:
            warnings.append(
                f"{counted(twice.contradictions, 'pair prefers', 'pairs prefer')} what another "
                "pair of the same prompt rejects"
            )
        if twice.first_shared:
            warnings.append(
                f"{counted(twice.shared_prompts, 'held-out row shares', 'held-out rows share')} "
                f"the prompt with training rows and {twice.shared_images:,} an image, the "
                f"first: {twice.first_shared[0]}"
            )
        return warnings


def _about_length(lengths: LengthReport) -> list[str]:
    found = []
    low, high = LONGER_WINS
    unequal = 1 - lengths.equal if lengths.pairs else 0.0
    share = lengths.chosen_longer / unequal if unequal else 0.5
    if not low <= share <= high:
        which = "longer" if share > 0.5 else "shorter"
        part = max(share, 1 - share)
        found.append(
            f"the {which} answer wins in {100 * part:.0f} % of the pairs of unequal length"
        )
    return found


def _about_policy(lengths: Lengths) -> list[str]:
    """Says what the length policy would do."""
    same = "the same tokens in both answers, and no preference"
    texts = (
        (lengths.cut, "answer", "would be cut to fit max_length"),
        (lengths.shrunk, "image", "would be made smaller to fit max_length"),
        (lengths.alike, "pair", f"{'has' if lengths.alike == 1 else 'have'} {same}"),
        (lengths.dropped, "row", "would be left out: longer than max_length"),
    )
    return [f"{counted(number, noun)} {text}" for number, noun, text in texts if number]


def _scored(row: PreferenceRow) -> bool:
    return any(response.score is not None for response in row.responses)


def _is_of(problem: Problem, file: SourceFile) -> bool:
    """Says whether a problem is one of a file, whose name may begin that of another."""
    rest = problem.where.removeprefix(file.path)
    return rest != problem.where and rest[:1] in ("", " ", ",", "/")


def _pairs_per_prompt(rows: Sequence[PreferenceRow], keys: Sequence[Hashable]) -> dict[int, int]:
    pairs: Counter[Hashable] = Counter()
    for row, key in zip(rows, keys, strict=True):
        pairs[key] += len(row.pairs)
    return dict(sorted(Counter(pairs.values()).items()))


def _with_tokens(seen: Seen, lengths: Lengths) -> ImageReport:
    tokens = summary([number for number in lengths.images if number])
    return dataclasses.replace(seen.report, tokens=tokens)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    scored = [point for point in points if point[1] == point[1]]
    step = max(len(scored) // POINTS, 1)
    return scored[::step][:POINTS]
