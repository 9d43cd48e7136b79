"""MM-DPO: DPO whose reward scale grows with the margin of the scores.

Source: MM-RLHF, arXiv 2502.10391, "dynamic reward scaling", as the paper states it, by pair; the
released training code takes another, batch-level path.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import (
    Loss,
    LossConfig,
    Value,
    always,
    implicit_rewards,
    never,
    require,
    require_positive,
)

__all__ = ["LOSS", "MMDPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class MMDPOLossConfig(LossConfig):
    """Parameters of MM-DPO."""

    beta: Value = 0.1
    """Reward scale of a pair whose scores are equal, > 0."""
    scaling_weight: Value = 0.5
    """Largest relative growth of beta, the paper's w, >= 0; 0 is DPO."""
    scaling_rate: Value = 0.5
    """How fast it grows with the score margin, the paper's k, > 0, 1 / score units."""
    length_norm: bool = False
    """Whether log-probabilities are means over tokens."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require_positive("scaling_rate", self.scaling_rate)
        finite = ">= 0 and finite"
        require("scaling_weight", self.scaling_weight, lambda v: (v >= 0) & v.isfinite(), finite)


def _compute(pairs: PairLogps, config: MMDPOLossConfig) -> LossOutput:
    # mis-ordered scores say nothing for the pair: it keeps the plain beta
    margin = (pairs.score_chosen - pairs.score_rejected).clamp(min=0)
    scale = 1 + config.scaling_weight * -torch.expm1(-config.scaling_rate * margin)
    chosen, rejected = implicit_rewards(
        pairs, beta=config.beta, length_norm=config.length_norm
    )  # as logged: in one unit for all pairs
    return LossOutput(
        per_unit=-F.logsigmoid(scale * (chosen - rejected)),
        chosen_rewards=chosen.detach(),
        rejected_rewards=rejected.detach(),
        terms={"beta_scale": scale.detach()},
    )


LOSS = Loss(
    name="mm_dpo",
    config=MMDPOLossConfig,
    unit="pair",
    compute=_compute,
    terms=("beta_scale",),
    needs_reference=always,
    needs_scores=always,
    batch_dependent=never,
)
