"""WPO, Weighted Preference Optimization: DPO that weights off-policy pairs by their likelihood.

Pairs written by other models differ from what the policy itself would produce. WPO weights each
pair by the probability of its two responses under the current policy, as if they had been sampled
from it.

Source: arXiv 2406.11827, eq. 2, with length normalization as there: the weight is the product of
the two responses' mean probabilities per token, and a constant for the gradient. (TRL's
`use_weighting` can also divide by the policy's own concentration, the paper's "sampled alignment".)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "WPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class WPOLossConfig(LossConfig):
    """Parameters of WPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    length_norm: bool = False
    """Whether the margin uses means per token; the weight always does."""


def _compute(pairs: PairLogps, config: WPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    weight = torch.exp(pairs.policy_chosen.mean + pairs.policy_rejected.mean).detach()
    loss = -weight * F.logsigmoid(chosen - rejected)
    return loss_output(loss, chosen, rejected, w_wpo=weight)


LOSS = Loss(name="wpo", config=WPOLossConfig, compute=_compute, terms=("w_wpo",))
