"""Two results on the same samples: does one score better, and how small a difference would show?"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest, norm

__all__ = ["Paired", "holm", "mcnemar", "paired_test", "sign_flips"]

EXACT = 12
"""Clusters up to which every way to flip signs is counted; 2^12 of them."""
FLIPS = 10_000
POWER = 0.8
"""How often the smallest detectable difference would be found."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A test of the difference of two results.

    Attributes:
        n: Units compared.
        only_first, only_second: Units where one scores more than the other.
        difference: Mean of second minus first, in points of a hundred.
        p: How likely a difference as large is where there is none.
        test: What gave it.
        detectable: The smallest difference, in points, that a test at 5 % would find four times in
            five, by the spread of these scores.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    p: float
    test: Literal["mcnemar", "sign-flip"]
    detectable: float


def paired_test(
    first: Mapping[str, float], second: Mapping[str, float], clusters: Mapping[str, str]
) -> Paired:
    """Returns the test of two results on the same units.

    Exact McNemar where scores are 0 or 1 and every unit is a cluster by itself; else signs of the
    clusters' differences are flipped.

    Args:
        first: Unit -> score from 0 to 1.
        second: Likewise, of the same units.
        clusters: Unit -> its cluster.
    """
    units = sorted(first)
    gaps = np.array([second[unit] - first[unit] for unit in units])
    worse, better = int(np.sum(gaps < 0)), int(np.sum(gaps > 0))
    sums: dict[str, float] = defaultdict(float)
    for unit, gap in zip(units, gaps, strict=True):
        sums[clusters[unit]] += float(gap)
    grouped = np.array([sums[name] for name in sorted(sums)])
    binary = set(first.values()) | set(second.values()) <= {0.0, 1.0}
    exact = binary and len(sums) == len(units)
    return Paired(
        n=len(units),
        only_first=worse,
        only_second=better,
        difference=100 * float(gaps.mean()) if units else 0.0,
        p=mcnemar(worse, better) if exact else sign_flips(grouped),
        test="mcnemar" if exact else "sign-flip",
        detectable=_detectable(grouped, len(units)),
    )


def mcnemar(worse: int, better: int) -> float:
    """Returns the exact two-sided p of units that only one result has right."""
    if worse + better == 0:
        return 1.0
    return float(binomtest(better, worse + better, 0.5).pvalue)


def sign_flips(gaps: Sequence[float] | np.ndarray, *, seed: int = 0) -> float:
    """Returns the two-sided p of a mean of differences, signs flipped at random.

    With few differences that are not 0 every way to flip them is counted; the p is then exact.

    Args:
        gaps: One difference for each cluster.
        seed: Of the flips.
    """
    moved = np.asarray([gap for gap in gaps if gap], dtype=float)
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) - 1e-12  # ties count, also those that rounding parts
    if len(moved) <= EXACT:
        ways = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float(np.mean(np.abs((2 * ways - 1) @ moved) >= seen))
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(0, FLIPS, 500):
        signs = rng.integers(0, 2, size=(500, len(moved))) * 2 - 1
        hits += int(np.sum(np.abs(signs @ moved) >= seen))
    return (hits + 1) / (FLIPS + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(values, kind="stable")
    found = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        found[index] = largest
    return found


def _detectable(gaps: np.ndarray, units: int) -> float:
    """Returns (z_0.975 + z_0.8) standard errors of the mean difference, in points."""
    if len(gaps) < 2 or not units or not np.any(gaps):
        return math.inf  # nothing differs: there is no spread to go by
    error = float(np.std(gaps, ddof=1)) * math.sqrt(len(gaps)) / units
    return 100 * float(norm.ppf(0.975) + norm.ppf(POWER)) * error
