"""Direct Preference Optimization, on summed or length-normalised log-probabilities.

Source: arXiv 2305.18290, eq. 7; label smoothing as in "A note on DPO with noisy preferences"
(cDPO), where a share of the labels is taken to be flipped.
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

__all__ = ["LOSS", "DPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DPOLossConfig(LossConfig):
    """Parameters of DPO."""

    beta: Value = 0.1
    """Reward scale, > 0; about 0.1 for sums, 1 to 10 for means over tokens."""
    label_smoothing: Value = 0.0
    """Assumed share of flipped preferences, in [0, 0.5)."""
    length_norm: bool = False
    """Whether log-probabilities are means over tokens."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require_fraction("label_smoothing", self.label_smoothing, below=0.5)


def _compute(pairs: PairLogps, config: DPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin = chosen - rejected
    flipped = config.label_smoothing
    return LossOutput(
        # eq. 7, smoothed
        per_unit=-(1 - flipped) * F.logsigmoid(margin) - flipped * F.logsigmoid(-margin),
        chosen_rewards=chosen.detach(),
        rejected_rewards=rejected.detach(),
    )


LOSS = Loss(
    name="dpo",
    config=DPOLossConfig,
    unit="pair",
    compute=_compute,
    needs_reference=always,
    needs_scores=never,
    batch_dependent=never,
)
