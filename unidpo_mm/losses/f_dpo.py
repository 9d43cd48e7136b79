"""f-DPO: DPO with another divergence between policy and reference.

DPO follows from a penalty on the reverse Kullback-Leibler divergence, which keeps the policy on a
few likely responses. With another f-divergence, the reward is beta f'(t) instead of beta log t for
the ratio t of policy and reference: ``forward_kl`` keeps more diverse responses, and ``js`` and
``alpha`` lie in between.

Source: arXiv 2309.16240. As in TRL, f' is 1 - 1/t for the forward divergence, log(2t / (t + 1)) for
Jensen-Shannon, and (t^(a-1) - 1) / (a - 1) for the alpha-divergence, of which a = 1 is DPO.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import FINITE, Loss, LossConfig, Positive, Value, implicit_rewards, loss_output

__all__ = ["LOSS", "FDPOLossConfig"]

LARGEST = 80.0
"""Maximum of an exponent, so that a reward stays finite."""


@dataclass(frozen=True, kw_only=True)
class FDPOLossConfig(LossConfig):
    """Parameters of f-DPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "js"
    """The divergence; ``reverse_kl`` is DPO."""
    alpha: Annotated[Value, FINITE] = 0.5
    """Order a of the alpha-divergence; 0 is the forward, 1 the reverse divergence."""


def _slope(log_ratio: Tensor, config: FDPOLossConfig) -> Tensor:
    """Return f'(t) for log t [P]."""
    if config.divergence == "forward_kl":
        return 1 - torch.exp((-log_ratio).clamp(max=LARGEST))
    if config.divergence == "js":
        return math.log(2) + F.logsigmoid(log_ratio)
    if config.divergence == "alpha":
        power = torch.as_tensor(config.alpha, dtype=log_ratio.dtype, device=log_ratio.device) - 1
        reverse = power.abs() < 1e-6  # the limit is log t
        safe = torch.where(reverse, 1.0, power)
        return torch.where(
            reverse, log_ratio, torch.expm1((safe * log_ratio).clamp(max=LARGEST)) / safe
        )
    return log_ratio


def _compute(pairs: PairLogps, config: FDPOLossConfig) -> LossOutput:
    chosen, rejected = (
        config.beta * _slope(log_ratio, config) for log_ratio in implicit_rewards(pairs, beta=1.0)
    )
    return loss_output(-F.logsigmoid(chosen - rejected), chosen, rejected)


LOSS = Loss(name="f_dpo", config=FDPOLossConfig, compute=_compute)
