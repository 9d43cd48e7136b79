"""Metrics as formulas over sums, so that a point estimate and a bootstrap are one computation.

A benchmark sums the components of its metrics per cluster: correct answers, questions, images with
both answers correct. A metric is a formula over these sums. Resampling clusters with replacement
re-weights their sums; the same formula then gives the metric of the resample, including composite
metrics such as F1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.samples import GradedSample

Array = Any
"""A numpy array of floats; its last axis is gone after summation."""
Formula = Callable[["Totals"], Array]
MetricRow = tuple[str, float, Mapping[str, str]]
"""(cluster, score from 0 to 1, label -> value)."""


class Sums:
    """Sums by cluster and name.

    Attributes:
        clusters: Cluster -> its row.
        names: Name of a sum -> its column.
    """

    def __init__(self) -> None:
        self.clusters: dict[str, int] = {}
        self.names: dict[str, int] = {}
        self._cells: dict[tuple[int, int], float] = {}

    def add(self, cluster: str, name: str, value: float = 1.0) -> None:
        """Add a value to one sum of one cluster."""
        self.include(cluster)
        key = self.clusters[cluster], self.names.setdefault(name, len(self.names))
        self._cells[key] = self._cells.get(key, 0.0) + value

    def include(self, cluster: str) -> None:
        """Make a cluster part of the resampling even if nothing is added to it."""
        self.clusters.setdefault(cluster, len(self.clusters))

    def matrix(self) -> Array:
        """Return the sums as [clusters, names], clusters sorted by name."""
        matrix = np.zeros((len(self.clusters), len(self.names)))
        for (row, column), value in self._cells.items():
            matrix[row, column] = value
        return matrix[[self.clusters[name] for name in sorted(self.clusters)]]


@dataclass(frozen=True)
class Totals:
    """Sums over clusters, looked up by name; 0 for an unknown name."""

    values: Array  # [..., names]
    names: Mapping[str, int]  # Name -> its column

    def __getitem__(self, name: str) -> Array:
        column = self.names.get(name)
        return np.zeros(self.values.shape[:-1]) if column is None else self.values[..., column]


@dataclass
class Metrics:
    """The metrics of a benchmark."""

    sums: Sums = field(default_factory=Sums)  # The sums that the formulas use
    formulas: dict[str, Formula] = field(default_factory=dict)  # Name of a metric -> its formula
    # Proportions of independent binary samples: name -> (correct, n)
    plain: dict[str, tuple[float, int]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names of all metrics: first those of all samples, then those of groups."""
        overall = [name for name in self.formulas if "/" not in name]
        return overall + sorted(name for name in self.formulas if "/" in name)

    def values(self) -> dict[str, float]:
        """Return every metric."""
        totals = self.totals(self.sums.matrix().sum(axis=0))
        return {name: float(np.nan_to_num(self.formulas[name](totals))) for name in self.names()}

    def renamed(self, suffix: str) -> "Metrics":
        """Return the same metrics with a suffix on their names."""
        return Metrics(
            self.sums,
            {f"{name}{suffix}": formula for name, formula in self.formulas.items()},
            {f"{name}{suffix}": counts for name, counts in self.plain.items()},
        )

    def totals(self, values: Array) -> Totals:
        """Return sums, [..., names], that can be looked up by name."""
        return Totals(values, self.sums.names)


def ratio(part: str, total: str, *, scale: float = 100.0) -> Formula:
    """Return the formula scale * part / total, which is 0 if the total is 0."""
    return lambda totals: scale * divide(totals[part], totals[total])


def share(part: str, count: str, *, scale: float = 100.0) -> Formula:
    """Return the formula scale * part / count of a group.

    A resample without the group has no value for it: NaN, not 0.
    """
    return lambda totals: scale * divide(totals[part], totals[count], empty=np.nan)


def divide(part: Array, total: Array, *, empty: float = 0.0) -> Array:
    """Return part / total, and `empty` where the total is 0."""
    part, total = np.asarray(part, dtype=float), np.asarray(total, dtype=float)
    return np.divide(part, total, out=np.full_like(part, empty), where=total != 0)


def mean_of(formulas: Sequence[Formula]) -> Formula:
    """Return the unweighted mean of some formulas."""
    return lambda totals: sum(formula(totals) for formula in formulas) / max(len(formulas), 1)


def mean_score(
    name: str,
    samples: Sequence[GradedSample],
    *,
    metrics: Metrics | None = None,
    by_label: bool = True,
) -> Metrics:
    """Add the mean score of samples, and by default that of each label; see `mean_metrics`."""
    rows = [(s.cluster, s.score, s.labels if by_label else {}) for s in samples]
    return mean_metrics(name, rows, metrics=metrics)


def mean_metrics(
    name: str, rows: Sequence[MetricRow], *, metrics: Metrics | None = None
) -> Metrics:
    """Add the mean of a score over all rows, and over the rows of each label.

    Per label, ``accuracy`` becomes ``accuracy/category/<value>``.
    """
    metrics = metrics or Metrics()
    members: dict[str, list[tuple[str, float]]] = {}
    for cluster, score, labels in rows:
        parts = [name, *(f"{name}/{label}/{value}" for label, value in labels.items() if value)]
        for part in parts:
            metrics.sums.add(cluster, f"{part}:score", score)
            metrics.sums.add(cluster, f"{part}:n")
            metrics.formulas.setdefault(part, share(f"{part}:score", f"{part}:n"))
            members.setdefault(part, []).append((cluster, score))
    metrics.formulas.setdefault(name, share(f"{name}:score", f"{name}:n"))
    for part, scores in members.items():
        independent = len({cluster for cluster, _ in scores}) == len(scores)
        if independent and {score for _, score in scores} <= {0.0, 1.0}:
            metrics.plain[part] = (sum(score for _, score in scores), len(scores))
    return metrics
