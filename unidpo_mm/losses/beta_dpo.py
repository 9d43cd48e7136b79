"""Beta-DPO: DPO whose beta follows the reward margin of each batch, and that samples its pairs.

Pairs with a small margin between chosen and rejected response are informative and allow a small
beta, pairs with a large margin need a large one. Beta-DPO keeps a running mean M0 and standard
deviation of the margin M = beta0 * log-ratio margin. It samples pairs by a Gaussian around M0,
which drops outliers, and scales the loss by beta = beta0 * (1 + alpha * (mean M - M0)).

Source: arXiv 2407.08639. In the authors' code M lacks the factor beta0, so its alpha is alpha times
beta0 here; it samples from the batch of all processes, here each process samples from its own.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import (
    NONNEGATIVE,
    POSITIVE,
    Loss,
    LossConfig,
    Rule,
    always,
    fraction,
    implicit_rewards,
    loss_output,
)
from .running import MarginState

__all__ = ["LOSS", "BetaDPOLossConfig"]

SHARE = Rule(lambda value: (value > 0) & (value <= 1), "in (0, 1]")
MINIMUM_SCALE = 0.01
"""Minimum of beta / beta0: with a beta of 0 nothing is learned, below 0 pairs are unlearned."""


@dataclass(frozen=True, kw_only=True)
class BetaDPOLossConfig(LossConfig):
    """Parameters of beta-DPO; the defaults are the paper's."""

    beta: Annotated[float, POSITIVE] = 0.1
    """Reward scale beta0, > 0."""
    alpha: Annotated[float, NONNEGATIVE] = 0.6
    """How strongly beta follows the margin, >= 0; 0 keeps it at beta0."""
    momentum: Annotated[float, fraction()] = 0.9
    """Fraction of the running mean and standard deviation that a batch keeps, in [0, 1)."""
    keep: Annotated[float, SHARE] = 0.8
    """Fraction of the pairs of a micro-batch that is sampled, in (0, 1]; 1 keeps all."""


def _sample(margins: Tensor, state: MarginState, counted: Tensor, keep: float) -> Tensor:
    """Return [P], 1 / fraction for sampled pairs and 0 for the others."""
    number = max(round(keep * int(counted.sum())), 1)
    distance = (margins - (state.mean or 0.0)) / state.std
    likelihood = torch.softmax(torch.where(counted, -distance.square() / 2, -torch.inf), 0)
    probability = likelihood.clamp(min=1e-30) * counted  # so that there are always enough pairs
    chosen = torch.multinomial(probability, number)
    return torch.zeros_like(margins).index_fill(0, chosen, int(counted.sum()) / number)


def _compute(pairs: PairLogps, config: BetaDPOLossConfig, state: MarginState) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta)
    margin, counted = chosen - rejected, pairs.weight > 0
    values, sampled = margin.detach(), torch.ones_like(margin)
    if margin.requires_grad:  # an evaluation leaves the state as it is and uses every pair
        state.update(values[counted], config.momentum)
        if bool(counted.any()) and config.keep < 1:
            sampled = _sample(values, state, counted, config.keep)
    used = counted & (sampled > 0)
    mean = values[used].mean() if bool(used.any()) else values.new_zeros(())
    scale = (1 + config.alpha * (mean - (state.mean or 0.0))).clamp(min=MINIMUM_SCALE)
    loss = -sampled * F.logsigmoid(scale * margin)
    terms = {"beta_scale": scale.expand_as(values), "drawn": (sampled > 0).to(values)}
    return loss_output(loss, chosen, rejected, **terms)  # rewards in units of beta0


LOSS = Loss(
    name="beta_dpo",
    config=BetaDPOLossConfig,
    compute=_compute,
    terms=("beta_scale", "drawn"),
    batch_dependent=always,
    initial_state=MarginState,
)
