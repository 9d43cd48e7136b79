"""MM-DPO: DPO whose reward scale grows with the difference of the two scores.

Pairs with a clear quality difference get a larger beta, and so a stronger gradient, than pairs
whose responses are about equally good.

Source: MM-RLHF, arXiv 2502.10391, "dynamic reward scaling", per pair as in the paper; the released
training code scales per batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Nonnegative, Positive, always, implicit_rewards, loss_output

__all__ = ["LOSS", "MMDPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class MMDPOLossConfig(LossConfig):
    """Parameters of MM-DPO."""

    beta: Positive = 0.1
    """Reward scale of a pair with equal scores, > 0."""
    scaling_weight: Nonnegative = 0.5
    """Maximum relative growth of beta, the paper's w, >= 0; 0 is DPO."""
    scaling_rate: Positive = 0.5
    """How fast it grows with the score margin, the paper's k, > 0, 1 / score units."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: MMDPOLossConfig) -> LossOutput:
    # mis-ordered scores are no evidence for the pair: it keeps the plain beta
    margin = (pairs.score_chosen - pairs.score_rejected).clamp(min=0)
    scale = 1 + config.scaling_weight * -torch.expm1(-config.scaling_rate * margin)
    # logged rewards are unscaled, so that all pairs have the same unit
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    loss = -F.logsigmoid(scale * (chosen - rejected))
    return loss_output(loss, chosen, rejected, beta_scale=scale)


LOSS = Loss(
    name="mm_dpo",
    config=MMDPOLossConfig,
    compute=_compute,
    terms=("beta_scale",),
    needs_scores=always,
)
