"""DPO-Positive: DPO that is penalised where a chosen answer falls below the reference.

Source: Smaug, arXiv 2402.13228, eq. 3. Uni-DPO's released math trainer has a variant whose penalty
stands outside beta; `penalty_in_beta: false` is that one.
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
    require,
    require_positive,
)

__all__ = ["LOSS", "DPOPLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DPOPLossConfig(LossConfig):
    """Parameters of DPO-Positive; the defaults are the paper's."""

    beta: Value = 0.3
    """Reward scale, > 0."""
    dpop_lambda: Value = 50.0
    """Weight of the penalty, >= 0; 0 is DPO."""
    penalty_in_beta: bool = True
    """Whether beta scales the penalty too."""
    length_norm: bool = False
    """Whether log-probabilities are means over tokens."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        finite = ">= 0 and finite"
        require("dpop_lambda", self.dpop_lambda, lambda v: (v >= 0) & v.isfinite(), finite)


def _compute(pairs: PairLogps, config: DPOPLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    lost = (-chosen / config.beta).clamp(min=0)  # log(reference / policy) of the chosen answer
    penalty = config.dpop_lambda * lost * (config.beta if config.penalty_in_beta else 1.0)
    return LossOutput(
        per_unit=-F.logsigmoid(chosen - rejected - penalty),  # eq. 3
        chosen_rewards=chosen.detach(),
        rejected_rewards=rejected.detach(),
        terms={"lost_logp": lost.detach()},
    )


LOSS = Loss(
    name="dpop",
    config=DPOPLossConfig,
    unit="pair",
    compute=_compute,
    terms=("lost_logp",),
    needs_reference=always,
    needs_scores=never,
    batch_dependent=never,
)
