"""Scores of each source, and the quality weights with which a run would start."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses.weights import quality_weight
from ..records import PreferenceRow
from ..training.configured_loss import ConfiguredLoss
from .numbers import effective_share, histogram, summarize
from .report import ScoreReport

__all__ = ["score_reports"]


def score_reports(rows: Sequence[PreferenceRow], settings: ConfiguredLoss) -> list[ScoreReport]:
    """Return a report for each source with scores.

    Args:
        rows: Training rows, with scores on the scale of the run.
        settings: The loss, with a number for each `tau_good`.
    """
    by_source: dict[str, list[PreferenceRow]] = defaultdict(list)
    for row in rows:
        by_source[row.source].append(row)
    reports = (_report(name, source_rows, settings) for name, source_rows in by_source.items())
    return [report for report in reports if report is not None]


def _report(
    source: str, rows: Sequence[PreferenceRow], settings: ConfiguredLoss
) -> ScoreReport | None:
    pairs = [(row, pair) for row in rows for pair in row.pairs]
    both = [(row.responses[p.chosen].score, row.responses[p.rejected].score) for row, p in pairs]
    complete = [scores for scores in both if None not in scores]
    scored = torch.tensor(complete, dtype=torch.float64).reshape(-1, 2)
    if not len(scored):
        return None
    chosen, rejected = scored.unbind(1)
    margin = chosen - rejected
    eta, tau_good = (_parameter(settings, source, name) for name in ("eta", "tau_good"))
    w_qual = quality_weight(chosen, rejected, eta=eta)
    return ScoreReport(
        source=source,
        scored=len(scored),
        pairs=len(pairs),
        chosen=summarize(chosen),
        rejected=summarize(rejected),
        margin=summarize(margin),
        scores=histogram(torch.cat([chosen, rejected])),
        margins=histogram(margin),
        w_qual=summarize(w_qual),
        quality=histogram(w_qual, 0.0, 1.0),
        effective_share=effective_share(w_qual),
        eta=eta,
        tau_good=tau_good,
        good=_share(chosen >= tau_good),
        misordered=_share(margin < 0),
        ties=_share(margin == 0),
    )


def _parameter(settings: ConfiguredLoss, source: str, name: str) -> float:
    parameters = settings.by_source.get(source, {})
    return float(parameters.get(name, getattr(settings.config, name)))


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
