"""BCO: a binary classifier on implicit rewards, good answers above a shift and bad ones below it.

Source: arXiv 2404.04656. The paper keeps a running mean of the rewards as the shift; here it is
the mean of the micro-batch, so that the loss remembers nothing, or a number (TRL has 0).
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

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

__all__ = ["LOSS", "BCOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class BCOLossConfig(LossConfig):
    """Parameters of BCO."""

    beta: Value = 0.1
    """Reward scale, > 0."""
    shift: float | Literal["batch_mean"] = "batch_mean"
    """Reward that divides good from bad; ``batch_mean`` is the mean over all answers of pairs."""
    length_norm: bool = False
    """Whether log-probabilities are means over tokens."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        if not isinstance(self.shift, str):
            require("shift", self.shift, lambda value: value.isfinite(), "finite")


def _shift(chosen: Tensor, rejected: Tensor, counted: Tensor, config: BCOLossConfig) -> Value:
    if not isinstance(config.shift, str):
        return config.shift
    both = ((chosen + rejected) / 2).detach()
    return both[counted].mean() if bool(counted.any()) else 0.0


def _compute(pairs: PairLogps, config: BCOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    shift = _shift(chosen, rejected, pairs.weight > 0, config)
    return LossOutput(
        per_unit=-F.logsigmoid(chosen - shift) - F.logsigmoid(shift - rejected),
        chosen_rewards=chosen.detach(),
        rejected_rewards=rejected.detach(),
    )


LOSS = Loss(
    name="bco",
    config=BCOLossConfig,
    unit="pair",
    compute=_compute,
    needs_reference=always,
    needs_scores=never,
    batch_dependent=lambda config: config.shift == "batch_mean",
)
