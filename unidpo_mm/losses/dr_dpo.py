"""Dr. DPO, Distributionally Robustifying DPO: suspected label errors count less.

A pair whose loss stays far above that of the others of its batch may have swapped labels. Dr. DPO
minimizes a soft minimum of the losses in a batch instead of their mean, so that the weight of a
pair decreases with its loss. This is the opposite of Uni-DPO's w_perf, which increases with it.

Source: arXiv 2407.07880: L = -beta' log mean exp(-loss / beta'). It equals mean(q loss) + beta'
mean(q log q) with the weights q = exp(-loss / beta') / mean exp(-loss / beta'). The loss of a pair
is q times its DPO loss plus the second term, so that the mean is L and the gradient that of L.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, always, implicit_rewards, loss_output

__all__ = ["LOSS", "DrDPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DrDPOLossConfig(LossConfig):
    """Parameters of Dr. DPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    beta_prime: Positive = 1.0
    """The paper's beta', > 0: the larger, the more equal are the weights; infinity is DPO."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: DrDPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    loss = -F.logsigmoid(chosen - rejected)
    exponent = -loss.detach() / config.beta_prime
    weight = torch.where(pairs.weight > 0, pairs.weight, 0.0)  # fillers are not in the means
    total = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    log_mean = torch.logsumexp(exponent + weight.log(), 0) - total.log()
    log_q = torch.where(weight > 0, exponent - log_mean, 0.0)
    q = log_q.exp()
    divergence = (weight * q * log_q).sum() / total
    return loss_output(q * loss + config.beta_prime * divergence, chosen, rejected, w_robust=q)


LOSS = Loss(
    name="dr_dpo",
    config=DrDPOLossConfig,
    compute=_compute,
    terms=("w_robust",),
    batch_dependent=always,
)
