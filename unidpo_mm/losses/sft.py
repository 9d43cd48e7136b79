"""SFT, supervised fine-tuning: the negative log-likelihood of the good responses.

On preference data the good responses are the chosen ones. A response that is chosen in several
pairs of a prompt counts once.
"""

from dataclasses import dataclass

from ..records import LossOutput, SequenceLogps
from .base import Loss, never

__all__ = ["LOSS", "SFTLossConfig"]


@dataclass(frozen=True, kw_only=True)
class SFTLossConfig:
    """Parameters of supervised fine-tuning."""

    length_norm: bool = True
    """Whether a response counts by its mean log-prob per token, else by the sum."""


def _compute(responses: SequenceLogps, config: SFTLossConfig) -> LossOutput:
    return LossOutput(per_unit=-(responses.mean if config.length_norm else responses.sum))


LOSS = Loss(
    name="sft", config=SFTLossConfig, unit="response", compute=_compute, needs_reference=never
)
