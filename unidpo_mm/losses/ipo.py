"""IPO, Identity Preference Optimization: a squared loss with a finite target for the margin.

On deterministic preferences DPO's margin grows without bound, and the reference loses its
influence. IPO pulls the log-ratio margin to 1 / (2 beta) instead.

Source: arXiv 2310.12036, eq. 17. As in TRL, log-probs are means per token by default; the paper
does not discuss lengths.
"""

from dataclasses import dataclass

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "IPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class IPOLossConfig(LossConfig):
    """Parameters of IPO."""

    beta: Positive = 0.1
    """The paper's tau, > 0; the target of the margin is 1 / (2 beta), in nats."""
    length_norm: bool = True
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: IPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin = (chosen - rejected) / config.beta
    loss = (margin - 1 / (2 * config.beta)) ** 2  # eq. 17
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="ipo", config=IPOLossConfig, compute=_compute)
