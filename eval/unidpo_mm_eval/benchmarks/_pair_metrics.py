"""What rewards of pairs say: accuracy, whole and by group, margins, AUC, and the part of length.

A pair's reward is beta * (log pi - log ref) of each answer where there is a reference, else the
log-probability a token. A tie is wrong.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from ..data.samples import ScoredSample
from ..stats.metrics import Array, Metrics, Totals, divided, mean_metrics, share
from . import Rules

__all__ = ["RULES", "metrics", "once"]


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns accuracies, margins and shares; every one of them has an interval.

    Args:
        scored: Pairs; `details` hold ``margin`` and, per answer, log-probability a token and number
            of tokens.
    """
    found = mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in scored])
    halves: list[tuple[str, float, Mapping[str, str]]] = [
        (one.cluster, 0.5 if _tie(one) else one.score, {}) for one in scored
    ]
    mean_metrics("accuracy_ties_half", halves, metrics=found)
    mean_metrics("acc_plus", _whole(scored), metrics=found)
    _by_length(scored, found)
    for one in (one for one in scored if one.error is None):
        values = one.details
        found.sums.add(one.cluster, "pairs")
        for name in ("margin", "chosen_logp", "rejected_logp"):
            found.sums.add(one.cluster, name, values[name])
        if "fell" in values:
            found.sums.add(one.cluster, "fell", values["fell"])
            found.formulas["chosen_fell_rate"] = share("fell", "pairs")
        if "score_margin" in values:
            _add_products(found, one.cluster, values["margin"], values["score_margin"])
            found.formulas["score_margin_correlation"] = _correlation
    for name in ("margin", "chosen_logp", "rejected_logp"):
        found.formulas[f"mean_{name}"] = share(name, "pairs", scale=1.0)
    groups = [name for name in found.formulas if name.startswith("accuracy/group/")]
    if groups:
        parts = [found.formulas[name] for name in groups]
        found.formulas["macro_accuracy"] = lambda totals: sum(f(totals) for f in parts) / len(parts)
    return found


def once(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Returns what is no formula over sums: the median margin, and the AUC of rewards."""
    known = [one.details for one in scored if one.error is None]
    if not known:
        return {}
    chosen, rejected = (np.array([one[f"{side}_reward"] for one in known]) for side in SIDES)
    ranks = rankdata(np.concatenate([chosen, rejected]))[: len(chosen)]
    below = ranks.sum() - len(chosen) * (len(chosen) + 1) / 2
    return {
        "median_margin": float(np.median([one["margin"] for one in known])),
        "auc": float(100 * below / (len(chosen) * len(rejected))),
    }


SIDES = ("chosen", "rejected")


def _tie(one: ScoredSample) -> bool:
    return one.error is None and one.details["margin"] == 0.0


def _whole(scored: Sequence[ScoredSample]) -> list[tuple[str, float, Mapping[str, str]]]:
    """Returns one row for each unit: 1 where all of its pairs are right."""
    units: dict[str, list[ScoredSample]] = defaultdict(list)
    for one in scored:
        units[one.unit].append(one)
    return [(own[0].cluster, min(one.score for one in own), {}) for own in units.values()]


def _by_length(scored: Sequence[ScoredSample], found: Metrics) -> None:
    """Adds the accuracy where the better answer is shorter, and where it is longer."""
    parts: dict[str, list[tuple[str, float, Mapping[str, str]]]] = defaultdict(list)
    for one in (one for one in scored if one.error is None):
        gap = one.details["chosen_tokens"] - one.details["rejected_tokens"]
        name = "same" if gap == 0 else "longer" if gap > 0 else "shorter"
        parts[name].append((one.cluster, one.score, {}))
    for name, rows in parts.items():
        mean_metrics(f"accuracy/chosen/{name}", rows, metrics=found)


def _add_products(found: Metrics, cluster: str, x: float, y: float) -> None:
    for name, value in (("c_n", 1), ("c_x", x), ("c_y", y), ("c_xx", x * x), ("c_yy", y * y)):
        found.sums.add(cluster, name, value)
    found.sums.add(cluster, "c_xy", x * y)


def _correlation(totals: Totals) -> Array:
    n, x, y = totals["c_n"], totals["c_x"], totals["c_y"]
    both = n * totals["c_xy"] - x * y
    spread = (n * totals["c_xx"] - x**2) * (n * totals["c_yy"] - y**2)
    return divided(both, np.sqrt(np.maximum(spread, 0)), empty=np.nan)


RULES = Rules(metrics=metrics, headline="accuracy", once=once)
"""The rules of every set of pairs."""
