"""The parameters and switches of Uni-DPO, each checked where it is set."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .base import LossConfig, Value, require, require_positive
from .weights import Control

__all__ = ["UniDPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class UniDPOLossConfig(LossConfig):
    """Parameters and switches of Uni-DPO."""

    beta: Value = 2.0
    """Reward scale, > 0."""
    eta: Value = 0.7
    """Slope of the quality weight, >= 0, 1 / score units."""
    gamma: Value = 3.0
    """Exponent of the performance weight, >= 0."""
    tau_ref: Value = 2.0
    """Threshold of the performance weight, reward units."""
    nll_lambda: Value = 0.001
    """Weight of the calibrated NLL, >= 0; 0 switches it off."""
    tau_good: Value | Literal["median"] = "median"
    """Least score of a good answer; ``median`` is the median chosen score of each source."""
    missing_quality: Value | None = None
    """w_qual of pairs that lack a score, within [0, 1]; null asks for the scores of all."""
    nll_gate_margin: float = 0.0
    """Loss of log-probability a token that the gate of the NLL still overlooks, >= 0."""
    nll_once: bool = False
    """Whether an answer chosen in several pairs of a group gives its NLL once, not once a pair."""
    sft_weight: Value = 0.0
    """Weight of the NLL on every chosen answer, >= 0."""
    detach_weights: bool = False
    """Whether w_perf is a constant for the gradient."""
    quality_weight: Literal["score", "none"] | Control = "score"
    """``none`` is weight 1; ``batch_mean`` and ``permuted`` are controls for studies."""
    performance_weight: Literal["stabilised", "naive_focal", "none"] | Control = "stabilised"
    """``naive_focal`` judges against the reference gap; the rest as for quality_weight."""
    length_norm: bool | tuple[Literal["margin", "performance", "nll"], ...] = True
    """Where log-probabilities are means over tokens: everywhere, nowhere, or the uses named."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        for name in ("eta", "gamma", "nll_lambda", "nll_gate_margin", "sft_weight"):
            require(
                name,
                getattr(self, name),
                lambda value: (value >= 0) & value.isfinite(),
                ">= 0 and finite",
            )
        if self.missing_quality is not None:
            require("missing_quality", self.missing_quality, _is_weight, "within [0, 1]")
        require("tau_ref", self.tau_ref, lambda value: value.isfinite(), "finite")
        if not isinstance(self.tau_good, str):
            require("tau_good", self.tau_good, lambda value: ~value.isnan(), "a number")

    def normalises(self, use: Literal["margin", "performance", "nll"]) -> bool:
        """Whether the log-probabilities of this use are means over tokens."""
        return self.length_norm if isinstance(self.length_norm, bool) else use in self.length_norm


def _is_weight(value: Tensor) -> Tensor:
    return (
        (value >= 0) & (value <= 1)
    ) | value.isnan()  # NaN: a source whose pairs all have scores
