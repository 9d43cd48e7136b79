"""Paired tests of two results: is one better, and how small a difference could be detected?"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

EXACT = 12
"""Maximum number of clusters for which every combination of signs, 2^12, is counted."""
FLIPS = 10_000
POWER = 0.8
"""Probability of detecting the smallest detectable difference."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A test of the difference of two results."""

    n: int  # Number of units compared
    only_first: int  # Number of units on which one result scores higher
    only_second: int
    difference: float  # Mean of second minus first, in percentage points
    p: float  # The p-value
    test: Literal["mcnemar", "sign-flip"]  # Name of the test
    # The smallest difference, in points, that a test at 5 % would detect with a power of 80 %,
    # given the spread of these scores
    detectable: float


def paired_test(
    first: Mapping[str, float], second: Mapping[str, float], clusters: Mapping[str, str]
) -> PairedTest:
    """Test two results, unit -> score from 0 to 1, on the same units.

    Use the exact McNemar test if scores are binary and every unit is its own cluster, otherwise
    flip the signs of the clusters' differences.
    """
    units = sorted(first)
    differences = np.array([second[unit] - first[unit] for unit in units])
    worse, better = int(np.sum(differences < 0)), int(np.sum(differences > 0))
    sums: dict[str, float] = defaultdict(float)
    for unit, difference in zip(units, differences, strict=True):
        sums[clusters[unit]] += float(difference)
    grouped = np.array([sums[name] for name in sorted(sums)])
    binary = set(first.values()) | set(second.values()) <= {0.0, 1.0}
    exact = binary and len(sums) == len(units)
    return PairedTest(
        n=len(units),
        only_first=worse,
        only_second=better,
        difference=100 * float(differences.mean()) if units else 0.0,
        p=mcnemar(worse, better) if exact else sign_flips(grouped),
        test="mcnemar" if exact else "sign-flip",
        detectable=_detectable(grouped, len(units)),
    )


def mcnemar(worse: int, better: int) -> float:
    """Return the exact two-sided p-value from the units that only one result gets right."""
    if worse + better == 0:
        return 1.0
    from scipy.stats import binomtest  # takes a second to import

    return float(binomtest(better, worse + better, 0.5).pvalue)


def sign_flips(differences: Sequence[float] | np.ndarray, *, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean difference under random sign flips.

    With few nonzero differences, one per cluster, every combination is counted and the p-value is
    exact.
    """
    nonzero = np.asarray([difference for difference in differences if difference], dtype=float)
    if not len(nonzero):
        return 1.0
    observed = abs(nonzero.sum()) - 1e-12  # count ties, including those split by rounding
    if len(nonzero) <= EXACT:
        signs = np.arange(2 ** len(nonzero))[:, None] >> np.arange(len(nonzero)) & 1
        return float(np.mean(np.abs((2 * signs - 1) @ nonzero) >= observed))
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(0, FLIPS, 500):
        signs = rng.integers(0, 2, size=(500, len(nonzero))) * 2 - 1
        hits += int(np.sum(np.abs(signs @ nonzero) >= observed))
    return (hits + 1) / (FLIPS + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple tests (Holm 1979), in the same order."""
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def _detectable(differences: np.ndarray, units: int) -> float:
    """Return (z_0.975 + z_0.8) standard errors of the mean difference, in points."""
    if len(differences) < 2 or not units or not np.any(differences):
        return math.inf  # all differences are zero, so there is no spread to estimate from
    error = float(np.std(differences, ddof=1)) * math.sqrt(len(differences)) / units
    return 100 * float(ndtri(0.975) + ndtri(POWER)) * error
