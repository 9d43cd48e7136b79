"""BCO, Binary Classifier Optimization: chosen and rejected responses are classified one by one.

DPO compares the two rewards of a pair with each other. BCO compares each with a common threshold,
the reward shift: the logistic loss pushes chosen responses above it and rejected ones below.

Source: arXiv 2404.04656. The paper's shift is a running mean of the rewards; here it is the mean of
the micro-batch, so that the loss needs no state, or a fixed number (0 in TRL).
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import FINITE, Loss, LossConfig, Positive, Value, implicit_rewards, loss_output, require

__all__ = ["LOSS", "BCOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class BCOLossConfig(LossConfig):
    """Parameters of BCO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    shift: float | Literal["batch_mean"] = "batch_mean"
    """Reward between good and bad; ``batch_mean``: the mean of all responses in the pairs."""
    length_norm: bool = False
    """Whether log-probs are means per token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.shift, str):
            require("shift", self.shift, FINITE.holds, FINITE.text)


def _shift(chosen: Tensor, rejected: Tensor, counted: Tensor, config: BCOLossConfig) -> Value:
    if not isinstance(config.shift, str):
        return config.shift
    both = ((chosen + rejected) / 2).detach()
    return both[counted].mean() if bool(counted.any()) else 0.0


def _compute(pairs: PairLogps, config: BCOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    shift = _shift(chosen, rejected, pairs.weight > 0, config)
    loss = -F.logsigmoid(chosen - shift) - F.logsigmoid(shift - rejected)
    return loss_output(loss, chosen, rejected)


LOSS = Loss(
    name="bco",
    config=BCOLossConfig,
    compute=_compute,
    batch_dependent=lambda config: config.shift == "batch_mean",
)
