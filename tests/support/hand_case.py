"""Two pairs whose losses are computed by hand.

Responses of 2 and 4 tokens, as sums of log-probs:

    pair 1: policy -2, -6; reference -1, -6; log-ratios -1 and 0, margin -1
    pair 2: policy -4, -4; reference -6, -3; log-ratios 2 and -1, margin 3

and as means per token: log-ratios -1/2, 0 and 1, -1/4; margins -1/2 and 5/4.
"""

import math
from typing import Any

import torch
from builders import pairs_of

from unidpo_mm.losses.base import Loss
from unidpo_mm.records import PairLogps

__all__ = ["MEANS", "SUMS", "learning_pairs", "log1pexp", "losses_of", "two_pairs"]

SUMS = [-1.0, 3.0]
MEANS = [-0.5, 1.25]

Scores = tuple[list[float], list[float]]


def two_pairs(
    scores: Scores = ([4.0, 2.0], [2.0, 3.0]), weight: list[float] | None = None
) -> PairLogps:
    """Return the two pairs, without gradient."""
    return _pairs([-1.0, -2.0], scores, weight)


def learning_pairs(weight: list[float] | None = None) -> PairLogps:
    """Return the two pairs as in a training step, with a gradient."""
    chosen = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    return _pairs(chosen, ([0.0, 0.0], [0.0, 0.0]), weight)


def _pairs(chosen: Any, scores: Scores, weight: list[float] | None) -> PairLogps:
    return pairs_of(
        chosen, [-1.5, -1.0], [-0.5, -3.0], [-1.5, -0.75], *scores,
        lengths=([2.0, 2.0], [4.0, 4.0]), weight=weight,
    )  # fmt: skip


def log1pexp(value: float) -> float:
    """Return log(1 + e^value), which is -log sigmoid(-value)."""
    return math.log1p(math.exp(value))


def losses_of(loss: Loss, config: Any, *state: Any, pairs: PairLogps | None = None) -> list[float]:
    """Return the losses of pairs, by default of `two_pairs()`."""
    values: list[float] = loss.compute(pairs or two_pairs(), config, *state).per_unit.tolist()
    return values
