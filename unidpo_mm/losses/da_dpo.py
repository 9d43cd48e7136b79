"""DA-DPO, Difficulty-Aware DPO: easy pairs have a larger beta, and saturate earlier.

Preference data for images have many pairs that are easy to tell apart, on which DPO overfits.
DA-DPO measures how easy a pair is by the distance of its scores, and multiplies beta by 1 + this
distance, so that little has to be learned from an easy pair before its loss is small.

Source: arXiv 2601.00623. Its scores come from CLIP and from the likelihood under a vision-language
model, and lie in [0, 1]; for other scales, `score_range` divides the distance.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, always, implicit_rewards, loss_output

__all__ = ["LOSS", "DADPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DADPOLossConfig(LossConfig):
    """Parameters of DA-DPO."""

    beta: Positive = 0.1
    """Reward scale of a pair with equal scores, > 0."""
    score_range: Positive = 1.0
    """Distance of scores at which beta is doubled, > 0, score units."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: DADPOLossConfig) -> LossOutput:
    distance = (pairs.score_chosen - pairs.score_rejected).abs()
    scale = 1 + distance / config.score_range
    # logged rewards are unscaled, so that all pairs have the same unit
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    loss = -F.logsigmoid(scale * (chosen - rejected))
    return loss_output(loss, chosen, rejected, beta_scale=scale)


LOSS = Loss(
    name="da_dpo",
    config=DADPOLossConfig,
    compute=_compute,
    terms=("beta_scale",),
    needs_scores=always,
)
