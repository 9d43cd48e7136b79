"""Supervised fine-tuning: the negative log-likelihood of the good answers, one unit per answer.

On preference data the good answers are the chosen ones, each once per prompt.
"""

from dataclasses import dataclass

from ..records import LossOutput, SequenceLogps
from .base import Loss, never

__all__ = ["LOSS", "SFTLossConfig"]


@dataclass(frozen=True, kw_only=True)
class SFTLossConfig:
    """Parameters of supervised fine-tuning."""

    length_norm: bool = True
    """Whether an answer counts by its mean or by its summed log-probability."""


def _compute(responses: SequenceLogps, config: SFTLossConfig) -> LossOutput:
    return LossOutput(per_unit=-(responses.mean if config.length_norm else responses.sum))


LOSS = Loss(
    name="sft",
    config=SFTLossConfig,
    unit="response",
    compute=_compute,
    needs_reference=never,
    needs_scores=never,
    batch_dependent=never,
)
