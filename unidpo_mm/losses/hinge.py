"""Hinge loss on implicit rewards: pairs whose reward margin exceeds 1 give no gradient.

DPO's logistic loss keeps pushing pairs apart that are already well separated. The hinge loss is
linear in the margin up to 1 and zero beyond it.

Source: SLiC-HF, arXiv 2305.10425, eq. 1, on DPO's implicit rewards as in RSO, arXiv 2309.06657.
"""

from dataclasses import dataclass

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, implicit_rewards, loss_output

__all__ = ["LOSS", "HingeLossConfig"]


@dataclass(frozen=True, kw_only=True)
class HingeLossConfig(LossConfig):
    """Parameters of the hinge loss."""

    beta: Positive = 0.1
    """Reward scale, > 0; 1 / beta is the target of the log-ratio margin, in nats."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: HingeLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    loss = (1 - (chosen - rejected)).clamp(min=0)
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="hinge", config=HingeLossConfig, compute=_compute)
