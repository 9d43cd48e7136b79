"""Intervals: clusters drawn again with replacement, every metric computed anew in each draw."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from .metrics import Array, Metrics

__all__ = ["DRAWS", "Interval", "bootstrap", "bootstrap_gaps", "draws", "wilson"]

DRAWS = 2000
"""Resamples of an interval."""
CHUNK = 256
"""Resamples in memory at once."""
Kind = Literal["percentile", "bca"]


@dataclass(frozen=True)
class Interval:
    """An interval of a metric.

    Attributes:
        low, high: Its ends.
    """

    low: float
    high: float


def bootstrap(
    metrics: Metrics,
    *,
    level: float = 0.95,
    kind: Kind = "bca",
    count: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns an interval of every metric.

    Shares of independent samples that are right or wrong get Wilson's, which is no point where all
    of them are right.

    Args:
        metrics: The metrics with their sums by cluster.
        level: How often an interval should hold the true value.
        kind: Quantiles of the draws, or corrected for bias and skewness (BCa), which falls back to
            the quantiles where a metric does not vary.
        count: Draws.
        seed: Of the draws.
    """
    drawn = draws(metrics, count=count, seed=seed)
    left_out, point = _left_out(metrics), metrics.values()
    found = {}
    for name in metrics.names():
        if name in metrics.plain:
            found[name] = wilson(*metrics.plain[name], level=level)
        else:
            found[name] = _interval(drawn[name], point[name], left_out[name], level, kind)
    return found


def bootstrap_gaps(
    first: Metrics,
    second: Metrics,
    *,
    level: float = 0.95,
    kind: Kind = "bca",
    count: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns an interval of every metric's difference, second minus first.

    Both take the same draws of the same clusters.

    Args:
        first: The metrics that are subtracted.
        second: Those that they are subtracted from, of the same clusters.
        level: How often an interval should hold the true difference.
        kind: As for `bootstrap`.
        count: Draws.
        seed: Of the draws.
    """
    one, other = (draws(metrics, count=count, seed=seed) for metrics in (first, second))
    without = [_left_out(metrics) for metrics in (first, second)]
    points = [metrics.values() for metrics in (first, second)]
    return {
        name: _interval(
            other[name] - one[name],
            points[1][name] - points[0][name],
            without[1][name] - without[0][name],
            level,
            kind,
        )
        for name in first.names()
        if name in other
    }


def _left_out(metrics: Metrics) -> dict[str, Array]:
    """Returns the values of every metric, [clusters], each without one of the clusters."""
    matrix = metrics.sums.matrix()
    totals = metrics.totals(matrix.sum(axis=0) - matrix)
    return {n: np.broadcast_to(f(totals), len(matrix)) for n, f in metrics.formulas.items()}


def _interval(values: Array, point: float, left_out: Array, level: float, kind: Kind) -> Interval:
    """Returns the interval of one metric from its draws; those that lack its group are left out."""
    values, left_out = values[np.isfinite(values)], left_out[np.isfinite(left_out)]
    if not len(values):
        return Interval(point, point)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    quantiles = _corrected(tails, values, point, left_out) if kind == "bca" else tails
    low, high = np.quantile(values, quantiles)
    return Interval(float(low), float(high))


def draws(
    metrics: Metrics, *, count: int = DRAWS, seed: int = 0, weights: Array | None = None
) -> dict[str, Array]:
    """Returns the values of every metric, [count], over clusters drawn with replacement.

    Args:
        metrics: The metrics.
        count: Draws.
        seed: Of the draws; the same seed draws the same clusters, in the order of their names.
        weights: How often each draw has each cluster, [count, clusters]; None to draw.
    """
    matrix = metrics.sums.matrix()
    rng = np.random.default_rng(seed)
    parts: list[dict[str, Array]] = []
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if weights is None:
            drawn = rng.multinomial(len(matrix), np.full(len(matrix), 1 / len(matrix)), size=size)
        else:
            drawn = weights[start : start + size]
        totals = metrics.totals(drawn @ matrix)
        parts.append({n: np.broadcast_to(f(totals), size) for n, f in metrics.formulas.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in metrics.formulas}


def _corrected(tails: Array, values: Array, point: float, jackknife: Array) -> Array:
    """Returns the quantiles to take instead of the tails (Efron 1987)."""
    below = (np.mean(values < point) + np.mean(values <= point)) / 2
    spread = jackknife.mean() - jackknife if len(jackknife) else jackknife
    if not 0 < below < 1 or not np.any(np.abs(spread) > 1e-12):
        return tails
    bias = norm.ppf(below)
    skewness = np.sum(spread**3) / (6 * np.sum(spread**2) ** 1.5)
    shifted = bias + norm.ppf(tails)
    return norm.cdf(bias + shifted / (1 - skewness * shifted))


def wilson(right: float, n: int, *, level: float = 0.95) -> Interval:
    """Returns Wilson's interval of a share, in percent, of n independent samples.

    Args:
        right: How many of them are right.
        n: How many there are.
        level: As for `bootstrap`.
    """
    if n == 0:
        return Interval(0.0, 100.0)
    z = norm.ppf((1 + level) / 2)
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(100 * float(max(middle - half, 0.0)), 100 * float(min(middle + half, 1.0)))
