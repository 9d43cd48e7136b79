"""APO, Anchored Preference Optimization: says which way each likelihood is to move.

DPO only asks for a difference between two likelihoods. APO is anchored at the reference: ``zero``
raises that of the chosen response and lowers that of the rejected one, for data better than the
model. ``down`` lowers both, and the rejected one more, for data worse than the model.

Source: arXiv 2408.06266, eq. 7 and 8.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "APOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class APOLossConfig(LossConfig):
    """Parameters of APO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    variant: Literal["zero", "down"] = "zero"
    """``zero``: chosen responses are better than the model's own; ``down``: they are worse."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: APOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    if config.variant == "zero":
        loss = torch.sigmoid(-chosen) + torch.sigmoid(rejected)  # eq. 7
    else:
        loss = torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)  # eq. 8
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="apo", config=APOLossConfig, compute=_compute)
