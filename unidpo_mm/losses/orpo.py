"""ORPO, Odds Ratio Preference Optimization: fine-tuning and preference learning in one loss.

The loss is the NLL of the chosen response plus a penalty on the odds of the rejected response
against those of the chosen one. It needs no reference model.

Source: arXiv 2403.07691, eqs. 4, 6 and 7.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, loss_output, never

__all__ = ["LOSS", "ORPOLossConfig"]

MAXIMUM_LOGP = -1e-7
"""Mean log-prob per token at which the odds are capped: they go to infinity at 0."""


@dataclass(frozen=True, kw_only=True)
class ORPOLossConfig(LossConfig):
    """Parameters of ORPO."""

    beta: Positive = 0.1
    """Weight of the odds-ratio term, the paper's lambda, > 0."""


def _log_odds(logps: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of p = exp(logps), the probability per token."""
    logps = logps.clamp(max=MAXIMUM_LOGP)
    return logps - torch.log(-torch.expm1(logps))  # eq. 4


def _compute(pairs: PairLogps, config: ORPOLossConfig) -> LossOutput:
    chosen, rejected = pairs.policy_chosen.mean, pairs.policy_rejected.mean
    log_odds_ratio = _log_odds(chosen) - _log_odds(rejected)
    odds_term = -F.logsigmoid(log_odds_ratio)  # eq. 7
    loss = -chosen + config.beta * odds_term  # eq. 6
    return loss_output(
        loss, config.beta * chosen, config.beta * rejected, log_odds_ratio=log_odds_ratio
    )


LOSS = Loss(
    name="orpo",
    config=ORPOLossConfig,
    compute=_compute,
    terms=("log_odds_ratio",),
    needs_reference=never,
)
