"""Alpha-DPO: SimPO whose target margin is larger where the policy already beats its reference.

SimPO asks every pair for the same margin. Alpha-DPO adds alpha times the standardized difference of
the policy's and the reference's margins, so that a pair on which the policy has moved away from its
reference has to win by more. The added part is a constant for the gradient.

Source: arXiv 2410.10148. As in the authors' code, a running mean and deviation with momentum 0.9
standardize the margins, and the target is in nats per token. There both start at 0 and the
deviation is the mean of those of the batches. Here they start at the first batch, and the deviation
is that of all margins.
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import (
    FINITE,
    Loss,
    LossConfig,
    Nonnegative,
    Positive,
    Value,
    always,
    fraction,
    implicit_rewards,
    loss_output,
)
from .running import MarginState

__all__ = ["LOSS", "AlphaDPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class AlphaDPOLossConfig(LossConfig):
    """Parameters of alpha-DPO; the defaults are those of a released configuration."""

    beta: Positive = 2.5
    """Reward scale, > 0."""
    gamma_beta_ratio: Annotated[Value, FINITE] = 0.6
    """Target margin of an average pair, nats per token."""
    alpha: Nonnegative = 0.2
    """How much of a standard deviation is added, nats per token, >= 0; 0 is SimPO."""
    momentum: Annotated[float, fraction()] = 0.9
    """Fraction of the running mean and standard deviation that a batch keeps, in [0, 1)."""


def _compute(pairs: PairLogps, config: AlphaDPOLossConfig, state: MarginState) -> LossOutput:
    of_chosen, of_rejected = implicit_rewards(pairs, beta=1.0, length_norm=True)
    gap = (of_chosen - of_rejected).detach()
    chosen_rewards = config.beta * pairs.policy_chosen.mean
    rejected_rewards = config.beta * pairs.policy_rejected.mean
    margin = chosen_rewards - rejected_rewards
    if margin.requires_grad:  # an evaluation leaves the state as it is
        state.update(gap[pairs.weight > 0], config.momentum)
    target = config.gamma_beta_ratio + config.alpha * (gap - (state.mean or 0.0)) / state.std
    loss = -F.logsigmoid(margin - config.beta * target)
    return loss_output(loss, chosen_rewards, rejected_rewards, target_margin=config.beta * target)


LOSS = Loss(
    name="alpha_dpo",
    config=AlphaDPOLossConfig,
    compute=_compute,
    terms=("target_margin",),
    batch_dependent=always,
    initial_state=MarginState,
)
