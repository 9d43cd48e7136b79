"""DiscoPOP: the log-ratio modulated loss, which a language model found by writing losses.

It is DPO's logistic loss below a reward margin of 0 and an exponential loss above it. From one to
the other it rises a little, so it is not convex: a pair that is almost ranked correctly may stay
there, which the authors think is a protection against label errors.

Source: arXiv 2406.08414, eq. 5.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "DiscoPOPLossConfig"]

LARGEST = 80.0
"""Margins below -LARGEST have the same exponential part, so that it stays finite."""


@dataclass(frozen=True, kw_only=True)
class DiscoPOPLossConfig(LossConfig):
    """Parameters of DiscoPOP."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    discopop_tau: Positive = 0.05
    """Width of the transition between the two losses, > 0, reward units."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: DiscoPOPLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin = chosen - rejected
    exponential = torch.exp(-margin.clamp(min=-LARGEST))
    share = torch.sigmoid(margin / config.discopop_tau)
    loss = -F.logsigmoid(margin) * (1 - share) + exponential * share  # eq. 5
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="discopop", config=DiscoPOPLossConfig, compute=_compute)
