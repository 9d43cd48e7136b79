"""NCA, Noise Contrastive Alignment: the rewards of a pair matter, not only their difference.

DPO is satisfied if both likelihoods fall, as long as the rejected one falls more. NCA has a target
for the reward of the chosen response, log 2, so that its likelihood rises above that under the
reference and stays there, and it lowers the reward of the rejected one.

Source: arXiv 2402.05369, for pairs.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "NCALossConfig"]


@dataclass(frozen=True, kw_only=True)
class NCALossConfig(LossConfig):
    """Parameters of NCA."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: NCALossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    pull = F.logsigmoid(-chosen) + F.logsigmoid(-rejected)
    return loss_output(-F.logsigmoid(chosen) - pull / 2, chosen, rejected)


LOSS = Loss(name="nca", config=NCALossConfig, compute=_compute)
