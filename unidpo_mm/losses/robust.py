"""Robust DPO: an unbiased estimate of the DPO loss where a share of the labels is flipped.

Source: rDPO, arXiv 2403.00409. With a share eps of flipped labels the mean of
((1 - eps) * loss(as labelled) - eps * loss(flipped)) / (1 - 2 eps) is the loss of clean labels.
Its conservative sibling cDPO, which is biased and bounded, is `dpo` with `label_smoothing`.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import (
    Loss,
    LossConfig,
    Value,
    always,
    implicit_rewards,
    never,
    require_fraction,
    require_positive,
)

__all__ = ["LOSS", "RobustLossConfig"]


@dataclass(frozen=True, kw_only=True)
class RobustLossConfig(LossConfig):
    """Parameters of robust DPO."""

    beta: Value = 0.1
    """Reward scale, > 0."""
    label_smoothing: Value = 0.1
    """Assumed share of flipped preferences, in [0, 0.5); 0 is DPO."""
    length_norm: bool = False
    """Whether log-probabilities are means over tokens."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require_fraction("label_smoothing", self.label_smoothing, below=0.5)


def _compute(pairs: PairLogps, config: RobustLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin, flipped = chosen - rejected, config.label_smoothing
    as_labelled, as_flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return LossOutput(
        per_unit=((1 - flipped) * as_labelled - flipped * as_flipped) / (1 - 2 * flipped),
        chosen_rewards=chosen.detach(),
        rejected_rewards=rejected.detach(),
    )


LOSS = Loss(
    name="robust",
    config=RobustLossConfig,
    unit="pair",
    compute=_compute,
    needs_reference=always,
    needs_scores=never,
    batch_dependent=never,
)
