"""SPPO, Self-Play Preference Optimization: a squared loss with a target for each reward.

The log-ratio of the chosen response is pulled to 1 / (2 beta) and that of the rejected one to
-1 / (2 beta). As each response has a target of its own, the likelihood of the chosen one cannot
fall together with the rejected one.

Source: arXiv 2405.00675, eq. 4.7, with a probability of winning of 1 for the chosen response and 0
for the rejected one, as `sppo_hard` in TRL.
"""

from dataclasses import dataclass

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "SPPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class SPPOLossConfig(LossConfig):
    """Parameters of SPPO."""

    beta: Positive = 0.1
    """The paper's 1 / eta, > 0; the targets are +-1 / (2 beta), in nats."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: SPPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    # eq. 4.7; (log-ratio -+ 1 / (2 beta))^2 is (reward -+ 1/2)^2 / beta^2
    loss = ((chosen - 0.5) ** 2 + (rejected + 0.5) ** 2) / config.beta**2
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="sppo", config=SPPOLossConfig, compute=_compute)
