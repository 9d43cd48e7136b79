"""Summaries, histograms and correlations of numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .report import Histogram, Summary

__all__ = ["effective_share", "histogram", "spearman", "summary"]

BINS = 24


def summary(values: Sequence[float] | Tensor) -> Summary | None:
    """Return the summary of numbers; None of none."""
    found = torch.as_tensor(values, dtype=torch.float64)
    if not found.numel():
        return None
    ordered = found.sort().values
    at = [round(share * (len(ordered) - 1)) for share in (0, 0.05, 0.5, 0.95, 1)]
    low, p5, median, p95, high = (float(ordered[place]) for place in at)
    return Summary(len(ordered), float(found.mean()), low, p5, median, p95, high)


def histogram(values: Tensor, low: float | None = None, high: float | None = None) -> Histogram:
    """Return counts over a range, by default that of the values themselves."""
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    counts = torch.histogram(values.double(), edges).hist
    return Histogram(tuple(edges.tolist()), tuple(int(count) for count in counts))


def effective_share(weights: Tensor) -> float:
    """Return (sum w)^2 / (n sum w^2): how many pairs of equal weight say as much, as a share."""
    total = weights.double()
    squares = float((total**2).sum()) * len(total)
    return float(total.sum() ** 2) / squares if squares else 0.0


def spearman(one: Tensor, other: Tensor) -> float | None:
    """Return the correlation of ranks; None where one of them does not vary."""
    ranks = torch.stack([_ranks(one.double()), _ranks(other.double())])
    if len(one) < 2 or bool((ranks.std(1) == 0).any()):
        return None
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Return ranks, equal values sharing the mean of theirs."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    after = counts.cumsum(0).double()
    ranks: Tensor = (after - (counts.double() - 1) / 2)[inverse]
    return ranks
