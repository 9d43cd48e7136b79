"""FocalPO: DPO that learns mainly from pairs which the model already ranks correctly.

DPO's gradient is largest for pairs in the wrong order, many of which are never learned. FocalPO
multiplies the loss by the probability of the right order to a small power, so that these pairs
count less. Uni-DPO's focal weight does the opposite.

Source: arXiv 2501.06645: -sigmoid(r)^gamma log sigmoid(r) of the reward margin r, with its gradient
through both factors. The authors have published no code.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Nonnegative, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "FocalPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class FocalPOLossConfig(LossConfig):
    """Parameters of FocalPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    focal_gamma: Nonnegative = 0.05
    """Power of the probability, >= 0; 0 is DPO. Where log sigmoid(r) < -1 / gamma, r falls."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: FocalPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    log_right = F.logsigmoid(chosen - rejected)
    weight = (config.focal_gamma * log_right).exp()
    return loss_output(-weight * log_right, chosen, rejected, w_focal=weight)


LOSS = Loss(name="focal_po", config=FocalPOLossConfig, compute=_compute, terms=("w_focal",))
