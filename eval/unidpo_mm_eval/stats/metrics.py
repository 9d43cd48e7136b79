"""Metrics as formulas over sums, so that a point estimate and a bootstrap are one computation.

A benchmark adds up what its metrics are made of, cluster by cluster: right answers, questions,
images with both answers right. A metric is a formula over these sums. Drawing clusters again with
replacement weighs their sums; the same formula then gives the metric of the resample, composite
metrics included.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Array", "Formula", "Metrics", "Sums", "mean_metrics", "ratio", "share"]

Array = Any
"""A numpy array of floats; its last axis is gone where it has been summed."""

Formula = Callable[["Totals"], Array]


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
        """Adds a value to one sum of one cluster."""
        row = self.clusters.setdefault(cluster, len(self.clusters))
        column = self.names.setdefault(name, len(self.names))
        self._cells[row, column] = self._cells.get((row, column), 0.0) + value

    def touch(self, cluster: str) -> None:
        """Makes a cluster one of those that are drawn, also where nothing is added to it."""
        self.clusters.setdefault(cluster, len(self.clusters))

    def matrix(self) -> Array:
        """Returns the sums as [clusters, names], clusters in the order of their names."""
        matrix = np.zeros((len(self.clusters), len(self.names)))
        for (row, column), value in self._cells.items():
            matrix[row, column] = value
        return matrix[[self.clusters[name] for name in sorted(self.clusters)]]


@dataclass(frozen=True)
class Totals:
    """Sums over clusters, looked up by name; of a name that nothing was added to it is 0.

    Attributes:
        values: [..., names].
        names: Name -> its column.
    """

    values: Array
    names: Mapping[str, int]

    def __getitem__(self, name: str) -> Array:
        column = self.names.get(name)
        return np.zeros(self.values.shape[:-1]) if column is None else self.values[..., column]


@dataclass
class Metrics:
    """The metrics of a benchmark.

    Attributes:
        sums: What they are made of.
        formulas: Name of a metric -> its formula.
        plain: Shares of independent samples that are right or wrong: name -> (right, n).
    """

    sums: Sums = field(default_factory=Sums)
    formulas: dict[str, Formula] = field(default_factory=dict)
    plain: dict[str, tuple[float, int]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Returns the names of all metrics: those of all samples first, those of groups sorted."""
        whole = [name for name in self.formulas if "/" not in name]
        return whole + sorted(name for name in self.formulas if "/" in name)

    def values(self) -> dict[str, float]:
        """Returns every metric."""
        totals = self.totals(self.sums.matrix().sum(axis=0))
        return {name: float(np.nan_to_num(self.formulas[name](totals))) for name in self.names()}

    def renamed(self, suffix: str) -> "Metrics":
        """Returns the same metrics with something behind their names."""
        return Metrics(
            self.sums,
            {f"{name}{suffix}": formula for name, formula in self.formulas.items()},
            {f"{name}{suffix}": known for name, known in self.plain.items()},
        )

    def totals(self, values: Array) -> Totals:
        """Returns sums, [..., names], that can be looked up by name."""
        return Totals(values, self.sums.names)


def ratio(part: str, whole: str, *, scale: float = 100.0) -> Formula:
    """Returns the formula scale * part / whole, which is 0 where the whole is 0."""
    return lambda totals: scale * divided(totals[part], totals[whole])


def share(part: str, count: str, *, scale: float = 100.0) -> Formula:
    """Returns the formula scale * part / count of a group.

    A draw without the group has no value of it: NaN there, and never 0.
    """
    return lambda totals: scale * divided(totals[part], totals[count], empty=np.nan)


def divided(part: Array, whole: Array, *, empty: float = 0.0) -> Array:
    """Returns part / whole, and another value where the whole is 0."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.full_like(part, empty), where=whole != 0)


def mean_metrics(
    name: str,
    rows: Sequence[tuple[str, float, Mapping[str, str]]],
    *,
    metrics: Metrics | None = None,
) -> Metrics:
    """Returns the mean of a score over all rows, and over those of each label.

    Args:
        name: Of the metric, as in ``accuracy``; by labels it is ``accuracy/category/<value>``.
        rows: (cluster, score from 0 to 1, label -> value).
        metrics: What to add them to.
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
    for part, found in members.items():
        alone = len({cluster for cluster, _ in found}) == len(found)
        if alone and {score for _, score in found} <= {0.0, 1.0}:
            metrics.plain[part] = (sum(score for _, score in found), len(found))
    return metrics
