"""Direct Preference Optimization, on summed or length-normalised log-probabilities.

Source: arXiv 2305.18290, eq. 7; label smoothing as in "A note on DPO with noisy preferences"
(cDPO), where a share of the labels is taken to be flipped.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, Value, always, never, require

__all__ = ["LOSS", "DPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DPOLossConfig:
    """Parameters of DPO."""

    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012 - read by pydantic

    beta: Value = 0.1
    """Reward scale, > 0; about 0.1 for sums, 1 to 10 for means over tokens."""
    label_smoothing: Value = 0.0
    """Assumed share of flipped preferences, in [0, 0.5)."""
    length_norm: bool = False
    """Whether log-probabilities are means over tokens."""

    def __post_init__(self) -> None:
        require("beta", self.beta, lambda value: (value > 0) & value.isfinite(), "> 0 and finite")
        require(
            "label_smoothing",
            self.label_smoothing,
            lambda value: (value >= 0) & (value < 0.5),
            "in [0, 0.5)",
        )


def _compute(pairs: PairLogps, config: DPOLossConfig) -> LossOutput:
    assert pairs.reference_chosen is not None  # LOSS.needs_reference
    assert pairs.reference_rejected is not None
    which = "mean" if config.length_norm else "sum"
    chosen = getattr(pairs.policy_chosen, which) - getattr(pairs.reference_chosen, which)
    rejected = getattr(pairs.policy_rejected, which) - getattr(pairs.reference_rejected, which)
    chosen_rewards, rejected_rewards = config.beta * chosen, config.beta * rejected
    margin = chosen_rewards - rejected_rewards
    kept = 1 - config.label_smoothing
    flipped = -config.label_smoothing * F.logsigmoid(-margin)
    return LossOutput(
        per_unit=-kept * F.logsigmoid(margin) + flipped,  # eq. 7, smoothed
        chosen_rewards=chosen_rewards.detach(),
        rejected_rewards=rejected_rewards.detach(),
    )


LOSS = Loss(
    name="dpo",
    config=DPOLossConfig,
    unit="pair",
    compute=_compute,
    needs_reference=always,
    needs_scores=never,
    batch_dependent=never,
)
