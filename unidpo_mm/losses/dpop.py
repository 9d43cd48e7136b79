"""DPO-Positive: DPO with a penalty if the chosen response becomes less likely than before.

DPO only looks at the difference of two rewards, so it can lower the likelihood of the chosen
response as long as the rejected one falls faster. DPO-Positive subtracts from the margin how far
the chosen response has dropped below the reference.

Source: Smaug, arXiv 2402.13228, eq. 3. The released math trainer of Uni-DPO has a variant with the
penalty outside beta: `penalty_in_beta: false`.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Nonnegative, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "DPOPLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DPOPLossConfig(LossConfig):
    """Parameters of DPO-Positive; the defaults are the paper's."""

    beta: Positive = 0.3
    """Reward scale, > 0."""
    dpop_lambda: Nonnegative = 50.0
    """Weight of the penalty, >= 0; 0 is DPO."""
    penalty_in_beta: bool = True
    """Whether beta scales the penalty too."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: DPOPLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    lost = (-chosen / config.beta).clamp(min=0)  # log(reference / policy) of the chosen response
    penalty = config.dpop_lambda * lost * (config.beta if config.penalty_in_beta else 1.0)
    loss = -F.logsigmoid(chosen - rejected - penalty)  # eq. 3
    return loss_output(loss, chosen, rejected, lost_logp=lost)


LOSS = Loss(name="dpop", config=DPOPLossConfig, compute=_compute, terms=("lost_logp",))
