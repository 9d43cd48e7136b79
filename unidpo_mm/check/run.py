"""Reads sources and looks at them from every side."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.load import Loaded, SourceFile, read_sources
from ..errors import DataError
from ..records import PreferenceRow
from ..training.config import UniDPOConfig
from ..training.loss_settings import LossSettings, make_loss_settings
from ..training.score_warnings import score_warnings
from ..training.setup import load_family_and_adapter
from .lengths import Lengths, character_lengths, length_report, margins_by_length, token_lengths
from .overlap import overlap, prompt_key
from .pictures import Seen, look_at_pictures
from .report import CheckReport, LengthReport, OverlapReport, SourceSummary, StartWeights
from .scores import score_reports
from .shown import shown_rows
from .weights import sampled, start_weights

__all__ = ["CheckSettings", "check_data"]

POINTS = 1500
"""Pairs of the picture of margins by lengths."""
LONGER_WINS = (0.35, 0.65)
"""Share of pairs whose chosen answer is longer, outside of which length gives the answer away."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What to check against.

    Attributes:
        score_scale: The unit of all scores.
        loss, loss_parameters, loss_by_source: As in a recipe.
        model: A model by name; None to do without tokens and first weights.
        arguments: Arguments of `UniDPOConfig` that say how rows are rendered, such as max_length.
        sample: Rows that the model scores; 0 for none.
        workers: Processes that tokenise.
        shown: Rows on the page.
    """

    score_scale: tuple[float, float] | None = None
    loss: str = "uni_dpo"
    loss_parameters: dict[str, Any] = field(default_factory=dict)
    loss_by_source: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str | None = None
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
    """Returns what is in data and what a run would make of it.

    Args:
        sources: What would be trained on.
        settings: What to check against.
        held_out: What would be evaluated on.
    """
    check = _Check(settings or CheckSettings(), list(sources), list(held_out))
    return check.report()


class _Check:
    """One check: rows, what is known of them, and the report."""

    def __init__(
        self, settings: CheckSettings, sources: list[SourceFile], held_out: list[SourceFile]
    ) -> None:
        self.settings = settings
        self.files = {False: sources, True: held_out}
        self.loaded: dict[bool, Loaded] = {
            evaluation: read_sources(files, score_scale=settings.score_scale)
            for evaluation, files in self.files.items()
        }
        self.rows, self.eval_rows = self.loaded[False].rows, self.loaded[True].rows
        self.loss = make_loss_settings(
            settings.loss, settings.loss_parameters, settings.loss_by_source
        )
        self.problems = [*self.loaded[False].problems, *self.loaded[True].problems]

    def report(self) -> CheckReport:
        everything = [*self.rows, *self.eval_rows]
        self.problems += self.loss.check_rows(everything)
        seen = look_at_pictures(everything)
        self.problems += seen.problems
        whole = [row for n, row in enumerate(self.rows) if n not in seen.broken]
        lengths, weights = self._with_model(whole)
        self.problems += lengths.problems
        keys = [prompt_key(row, seen.keys_of(row)) for row in whole]
        found = length_report(whole, lengths, keys)
        scores = self._scores()
        twice = overlap(self.rows, self.eval_rows, [seen.keys_of(row) for row in everything])
        return CheckReport(
            sources=self._sources(),
            domains=dict(Counter(row.domain for row in self.rows)),
            rows=len(self.rows),
            pairs=sum(len(row.pairs) for row in self.rows),
            responses=sum(len(row.responses) for row in self.rows),
            prompts=len(set(keys)),
            pairs_per_prompt=_pairs_per_prompt(whole, keys),
            lengths=found,
            scores=scores,
            pictures=_with_tokens(seen, lengths),
            overlap=twice,
            weights=weights,
            margin_by_length=_thinned(margins_by_length(whole, lengths)),
            warnings=self._warnings(found, twice),
            problems=tuple(dict.fromkeys(self.problems)),
            model=self.settings.model,
            shown=shown_rows(whole, self.settings.shown),
        )

    def _with_model(self, rows: list[PreferenceRow]) -> tuple[Lengths, StartWeights | None]:
        """Returns lengths and first weights, by the model where there is one."""
        if self.settings.model is None:
            return character_lengths(rows), None
        arguments = UniDPOConfig(output_dir="unused", report_to="none", **self.settings.arguments)
        family, adapter = load_family_and_adapter(self.settings.model, arguments)
        lengths = token_lengths(
            rows,
            adapter,
            limited=arguments.max_length is not None,
            drop=arguments.length_policy == "drop",
            workers=self.settings.workers,
        )
        fitting = [r for r, answers in zip(rows, lengths.answers, strict=True) if answers]
        sample = sampled(fitting, self.settings.sample)
        if not sample or not hasattr(self.loss.config, "tau_ref"):
            return lengths, None
        from ..training.references import loading_source

        source = loading_source(self.settings.model, arguments)
        return lengths, start_weights(sample, source, family, adapter, self._resolved())

    def _resolved(self) -> LossSettings:
        try:
            return self.loss.with_medians(self.rows)
        except DataError as error:  # scores are missing, which is told row by row
            self.problems += [p for p in error.problems if p not in self.problems]
            return make_loss_settings(self.settings.loss, {"tau_good": float("inf")})

    def _scores(self) -> Any:
        if not hasattr(self.loss.config, "eta"):
            return ()
        return score_reports(self.rows, self._resolved())

    def _sources(self) -> list[SourceSummary]:
        summaries = []
        for evaluation, files in self.files.items():
            loaded = self.loaded[evaluation]
            reports = {report.source: report for report in loaded.reports}
            for file in files:
                report = reports.get(file.source_name)
                summaries.append(
                    SourceSummary(
                        name=file.source_name,
                        path=file.path,
                        judge=file.scores.judge,
                        scale=file.scores.scale,
                        records=report.records if report else 0,
                        rows=sum(row.source == file.source_name for row in loaded.rows),
                        problems=sum(p.where.startswith(file.path) for p in self.problems),
                        formats=dict(report.formats) if report else {},
                        unread=dict(report.unread) if report else {},
                        notes=report.pairs.sentences(report.policy) if report else (),
                        evaluation=evaluation,
                    )
                )
        return summaries

    def _warnings(self, lengths: LengthReport | None, twice: OverlapReport) -> list[str]:
        files = self.files[False]
        scale = self.settings.score_scale
        declared = {
            file.source_name: scale or file.scores.scale for file in files if file.scores.scale
        }
        warnings = score_warnings(self.rows, self._resolved(), declared)
        for summary in self._sources():
            warnings += [f"source '{summary.name}': {note}" for note in summary.notes]
            if summary.unread:
                columns = ", ".join(f"{name} ({n:,})" for name, n in summary.unread.items())
                warnings.append(f"source '{summary.name}': columns that are not read: {columns}")
        if lengths is not None:
            warnings += _about_length(lengths)
        if twice.duplicates:
            warnings.append(
                f"{twice.duplicates:,} rows equal an earlier one in prompt, pictures and answers, "
                f"the first of them {twice.first_duplicates[0][0]}"
            )
        if twice.first_shared:
            warnings.append(
                f"{twice.shared_prompts:,} held-out rows share their prompt with training rows and "
                f"{twice.shared_pictures:,} a picture, the first of them {twice.first_shared[0]}"
            )
        return warnings


def _about_length(lengths: LengthReport) -> list[str]:
    found = []
    low, high = LONGER_WINS
    unequal = 1 - lengths.equal
    share = lengths.chosen_longer / unequal if unequal else 0.5
    if not low <= share <= high:
        which = "longer" if share > 0.5 else "shorter"
        part = max(share, 1 - share)
        found.append(
            f"the {which} answer wins in {100 * part:.0f} % of the pairs of unequal length"
        )
    for number, text in (
        (lengths.cut, "answers would be cut to fit max_length"),
        (lengths.shrunk, "pictures would be made smaller to fit max_length"),
        (lengths.dropped, "rows would be left out: longer than max_length"),
    ):
        if number:
            found.append(f"{number:,} {text}")
    return found


def _pairs_per_prompt(rows: Sequence[PreferenceRow], keys: Sequence[Hashable]) -> dict[int, int]:
    pairs: Counter[Hashable] = Counter()
    for row, key in zip(rows, keys, strict=True):
        pairs[key] += len(row.pairs)
    return dict(sorted(Counter(pairs.values()).items()))


def _with_tokens(seen: Seen, lengths: Lengths) -> Any:
    import dataclasses

    from .numbers import summary

    tokens = summary([n for n in lengths.pictures if n])
    return dataclasses.replace(seen.report, tokens=tokens)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    scored = [point for point in points if point[1] == point[1]]
    step = max(len(scored) // POINTS, 1)
    return scored[::step][:POINTS]
