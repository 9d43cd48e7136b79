"""Confidence intervals: clusters are resampled and every metric is recomputed in each resample."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri  # scipy.stats takes a second to import

from .metrics import Array, Metrics

RESAMPLES = 2000
CHUNK = 256
"""Maximum number of resamples in memory at once."""
LEVEL = 0.95
Kind = Literal["percentile", "bca"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a metric."""

    low: float
    high: float


def bootstrap(
    metrics: Metrics, *, kind: Kind = "bca", count: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return a 95 % interval of every metric.

    Proportions of independent binary samples get Wilson intervals, which are not a single point
    if all samples are correct.

    They are percentiles of the resamples, or corrected for bias and skewness (BCa), which falls
    back to percentiles if a metric does not vary.
    """
    resampled = resample(metrics, count=count, seed=seed)
    without, point = _jackknife(metrics), metrics.values()
    return {
        name: wilson(*metrics.plain[name])
        if name in metrics.plain
        else _interval(resampled[name], point[name], without[name], kind)
        for name in metrics.names()
    }


def bootstrap_differences(
    first: Metrics, second: Metrics, *, kind: Kind = "bca", count: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Return a 95 % interval of the difference, second minus first, of every shared metric.

    Both use the same resamples of the same clusters.
    """
    pair = (first, second)
    resampled = [resample(metrics, count=count, seed=seed) for metrics in pair]
    without = [_jackknife(metrics) for metrics in pair]
    points = [metrics.values() for metrics in pair]
    return {
        name: _interval(
            resampled[1][name] - resampled[0][name],
            points[1][name] - points[0][name],
            without[1][name] - without[0][name],
            kind,
        )
        for name in first.names()
        if name in resampled[1]
    }


def _jackknife(metrics: Metrics) -> dict[str, Array]:
    """Return the values of every metric, [clusters], each with one of the clusters removed."""
    matrix = metrics.sums.matrix()
    totals = metrics.totals(matrix.sum(axis=0) - matrix)
    return {n: np.broadcast_to(f(totals), len(matrix)) for n, f in metrics.formulas.items()}


def _interval(values: Array, point: float, jackknife: Array, kind: Kind) -> Interval:
    """Return the interval of one metric; resamples that lack its group are skipped."""
    values, jackknife = values[np.isfinite(values)], jackknife[np.isfinite(jackknife)]
    if not len(values):
        return Interval(point, point)
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    quantiles = _corrected(tails, values, point, jackknife) if kind == "bca" else tails
    low, high = np.quantile(values, quantiles)
    return Interval(float(low), float(high))


def resample(
    metrics: Metrics, *, count: int = RESAMPLES, seed: int = 0, weights: Array | None = None
) -> dict[str, Array]:
    """Return the values of every metric, [count], over clusters drawn with replacement.

    Args:
        metrics: The metrics.
        count: Number of resamples.
        seed: Equal seeds draw the same clusters, in the order of their names.
        weights: How often each resample contains each cluster, [count, clusters]; `None` draws.
    """
    matrix = metrics.sums.matrix()
    if weights is None:
        chunks = resamples(len(matrix), count, seed)
    else:
        chunks = (weights[start : start + CHUNK] for start in range(0, count, CHUNK))
    parts: list[dict[str, Array]] = []
    for drawn in chunks:
        totals = metrics.totals(drawn @ matrix)
        parts.append(
            {n: np.broadcast_to(f(totals), len(drawn)) for n, f in metrics.formulas.items()}
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in metrics.formulas}


def resamples(clusters: int, count: int, seed: int) -> Iterator[Array]:
    """Draw clusters with replacement.

    Args:
        clusters: Number of clusters.
        count: Number of draws.
        seed: Seed of the draws.

    Yields:
        How often each draw has each cluster, [at most CHUNK, clusters].
    """
    rng = np.random.default_rng(seed)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size)


def _corrected(tails: Array, values: Array, point: float, jackknife: Array) -> Array:
    """Return the quantiles that BCa uses in place of the tails (Efron 1987)."""
    below = (np.mean(values < point) + np.mean(values <= point)) / 2
    spread = jackknife.mean() - jackknife if len(jackknife) else jackknife
    if not 0 < below < 1 or not np.any(np.abs(spread) > 1e-12):
        return tails
    bias = ndtri(below)
    skewness = np.sum(spread**3) / (6 * np.sum(spread**2) ** 1.5)
    shifted = bias + ndtri(tails)
    return ndtr(bias + shifted / (1 - skewness * shifted))


def wilson(correct: float, n: int) -> Interval:
    """Return Wilson's 95 % interval, in percent, of a proportion of n independent samples."""
    if n == 0:
        return Interval(0.0, 100.0)
    z = ndtri((1 + LEVEL) / 2)
    p = correct / n
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Interval(100 * float(max(center - half, 0.0)), 100 * float(min(center + half, 1.0)))
