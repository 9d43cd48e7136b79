"""Summaries, histograms and correlations of numbers."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .report import Histogram, Summary

__all__ = [
    "effective_share",
    "evenly_spaced",
    "histogram",
    "optional_summary",
    "spearman",
    "summarize",
]

Item = TypeVar("Item")
BINS = 24


def summarize(values: Sequence[float] | Tensor) -> Summary:
    """Return the summary of at least one number."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    ordered = numbers.sort().values
    ranks = [round(share * (len(ordered) - 1)) for share in (0, 0.05, 0.5, 0.95, 1)]
    low, p5, median, p95, high = (float(ordered[rank]) for rank in ranks)
    return Summary(len(ordered), float(numbers.mean()), low, p5, median, p95, high)


def optional_summary(values: Sequence[float]) -> Summary | None:
    """Return the summary of numbers; `None` if there are none."""
    return summarize(values) if values else None


def evenly_spaced(items: Sequence[Item], number: int) -> Sequence[Item]:
    """Return at most `number` of the items."""
    return items[:: max(len(items) // max(number, 1), 1)][:number]


def histogram(values: Tensor, low: float | None = None, high: float | None = None) -> Histogram:
    """Return counts over a range, by default that of the values."""
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    counts = torch.histogram(values.double(), edges).hist
    return Histogram(tuple(edges.tolist()), tuple(int(count) for count in counts))


def effective_share(weights: Tensor) -> float:
    """Return the effective sample size of weights over their number, (sum w)^2 / (n sum w^2)."""
    total = weights.double()
    squares = float((total**2).sum()) * len(total)
    return float(total.sum() ** 2) / squares if squares else 0.0


def spearman(first: Tensor, second: Tensor) -> float | None:
    """Return the correlation of ranks; `None` if the values of one tensor are all equal."""
    ranks = torch.stack([_ranks(first.double()), _ranks(second.double())])
    if len(first) < 2 or bool((ranks.std(1) == 0).any()):
        return None
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Return ranks; equal values have the mean of their ranks."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    after = counts.cumsum(0).double()
    ranks: Tensor = (after - (counts.double() - 1) / 2)[inverse]
    return ranks
