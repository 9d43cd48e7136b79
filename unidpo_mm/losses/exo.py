"""EXO, Efficient Exact Optimization: the reverse Kullback-Leibler divergence in place of DPO's.

DPO fits the model's preference between the two responses to the label by the forward divergence,
which covers everything the label allows. EXO uses the reverse one, which concentrates on the
preferred response.

Source: arXiv 2402.00856, eq. 16, for pairs: KL(q, p) with q = (sigmoid(r), sigmoid(-r)) for the
reward margin r and the smoothed label p = (1 - epsilon, epsilon).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, Rule, Value, implicit_rewards, loss_output

__all__ = ["LOSS", "EXOLossConfig"]

SMOOTHED = Rule(lambda value: (value > 0) & (value < 0.5), "in (0, 0.5)")


@dataclass(frozen=True, kw_only=True)
class EXOLossConfig(LossConfig):
    """Parameters of EXO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    label_smoothing: Annotated[Value, SMOOTHED] = 1e-3
    """The paper's epsilon, in (0, 0.5): the loss is infinite without smoothing."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: EXOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin = chosen - rejected
    flipped = torch.as_tensor(config.label_smoothing, dtype=margin.dtype, device=margin.device)
    right, wrong = F.logsigmoid(margin), F.logsigmoid(-margin)
    # eq. 16
    loss = right.exp() * (right - torch.log1p(-flipped)) + wrong.exp() * (wrong - flipped.log())
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="exo", config=EXOLossConfig, compute=_compute)
