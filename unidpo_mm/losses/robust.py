"""Robust DPO: an unbiased estimate of the DPO loss if a fraction of the labels is flipped.

If a fraction eps of the preferences is flipped at random, the mean of
((1 - eps) * loss(as labeled) - eps * loss(flipped)) / (1 - 2 eps) is the loss on clean labels.
Label smoothing (`dpo` with `label_smoothing`, cDPO) is the conservative alternative: biased, but
bounded.

Source: rDPO, arXiv 2403.00409.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, Value, fraction, implicit_rewards, loss_output

__all__ = ["LOSS", "RobustLossConfig"]


@dataclass(frozen=True, kw_only=True)
class RobustLossConfig(LossConfig):
    """Parameters of robust DPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    label_smoothing: Annotated[Value, fraction(0.5)] = 0.1
    """Assumed fraction of flipped preferences, in [0, 0.5); 0 is DPO."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: RobustLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin, flipped = chosen - rejected, config.label_smoothing
    as_labeled, as_flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    loss = ((1 - flipped) * as_labeled - flipped * as_flipped) / (1 - 2 * flipped)
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="robust", config=RobustLossConfig, compute=_compute)
