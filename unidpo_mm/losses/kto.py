"""KTO, Kahneman-Tversky optimization: responses are labeled good or bad, one by one.

A good response loses 1 - sigmoid(reward - kl), a bad one 1 - sigmoid(kl - reward). So the reward of
a response is compared with kl, an estimate of how far the policy is from its reference: the mean
reward of mismatched responses, those to other prompts, which is never below 0 and has no gradient.

Source: arXiv 2402.01306, equation 8. Without kl, the loss is the unpaired APO-zero of arXiv
2408.06266.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Nonnegative, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "KTOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class KTOLossConfig(LossConfig):
    """Parameters of KTO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    desirable_weight: Nonnegative = 1.0
    """Weight of good responses, >= 0."""
    undesirable_weight: Nonnegative = 1.0
    """Weight of bad responses, >= 0."""
    kl: Literal["batch_mean", "none"] = "batch_mean"
    """Reward that responses are compared with; ``batch_mean``: the mean of the micro-batch's
    mismatched responses; ``none``: 0."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: KTOLossConfig) -> LossOutput:
    assert pairs.good is not None  # Loss.needs_labels
    rewards, mismatched = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    kl = torch.zeros_like(rewards)
    if config.kl == "batch_mean":
        kl = kl + _kl(mismatched.detach(), pairs.weight)
    good = pairs.good.to(rewards)
    side = good * config.desirable_weight + (1 - good) * config.undesirable_weight
    loss = side * torch.sigmoid((1 - 2 * good) * (rewards - kl))
    return loss_output(loss, rewards, kl, kl=kl)


def _kl(rewards: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over the units with a weight, at least 0."""
    counted = (weight > 0).to(rewards)
    return ((counted * rewards).sum() / counted.sum().clamp(min=1)).clamp(min=0)


LOSS = Loss(
    name="kto",
    config=KTOLossConfig,
    compute=_compute,
    terms=("kl",),
    needs_labels=True,
    needs_mismatched=lambda config: config.kl == "batch_mean",
    batch_dependent=lambda config: config.kl == "batch_mean",
)
