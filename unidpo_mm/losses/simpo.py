"""SimPO, Simple Preference Optimization: the mean log-prob of a response is its reward.

Unlike DPO it needs no reference model, and its reward is what generation ranks by. A target margin
asks the chosen response to win by more than a little.

Source: arXiv 2405.14734, eq. 6.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import FINITE, Loss, LossConfig, Positive, Value, loss_output, never

__all__ = ["LOSS", "SimPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class SimPOLossConfig(LossConfig):
    """Parameters of SimPO; the defaults are those of the released multimodal baseline."""

    beta: Positive = 2.0
    """Reward scale, > 0."""
    simpo_gamma: Annotated[Value, FINITE] = 1.0
    """Target margin, reward units."""


def _compute(pairs: PairLogps, config: SimPOLossConfig) -> LossOutput:
    chosen_rewards = config.beta * pairs.policy_chosen.mean
    rejected_rewards = config.beta * pairs.policy_rejected.mean
    margin = chosen_rewards - rejected_rewards
    loss = -F.logsigmoid(margin - config.simpo_gamma)  # eq. 6
    return loss_output(loss, chosen_rewards, rejected_rewards)


LOSS = Loss(name="simpo", config=SimPOLossConfig, compute=_compute, needs_reference=never)
