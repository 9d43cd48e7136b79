"""The switches of Uni-DPO: its parameters, and what each of them makes of weights and gate."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..records import PairLogps, SequenceLogps
from .base import LossConfig, Value, require, require_positive
from .weights import (
    Control,
    calibrated_nll_gate,
    control_weight,
    focal_weight,
    performance_weight,
    quality_weight,
)

__all__ = ["UniDPOLossConfig", "gate_of", "logps_of", "performance_of", "quality_of"]


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
        require("tau_ref", self.tau_ref, lambda value: value.isfinite(), "finite")
        if not isinstance(self.tau_good, str):
            require("tau_good", self.tau_good, lambda value: ~value.isnan(), "a number")

    def normalises(self, use: Literal["margin", "performance", "nll"]) -> bool:
        """Whether the log-probabilities of this use are means over tokens."""
        return self.length_norm if isinstance(self.length_norm, bool) else use in self.length_norm


def logps_of(side: SequenceLogps, mean: bool) -> Tensor:
    """Returns [P], log-probabilities a token or summed."""
    return side.mean if mean else side.sum


def _policy_margin(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    mean = config.normalises("performance")
    return config.beta * (
        logps_of(pairs.policy_chosen, mean) - logps_of(pairs.policy_rejected, mean)
    )


def quality_of(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    """Returns w_qual [P] as configured."""
    choice = config.quality_weight
    if choice == "none":
        return pairs.policy_chosen.sum.new_ones(pairs.policy_chosen.sum.shape)
    weight = quality_weight(pairs.score_chosen, pairs.score_rejected, eta=config.eta)
    return weight if choice == "score" else control_weight(weight, choice, counted=pairs.weight > 0)


def performance_of(pairs: PairLogps, config: UniDPOLossConfig, reward_margin: Tensor) -> Tensor:
    """Returns w_perf [P] as configured; only the naive focal weight looks at the reward margin."""
    choice = config.performance_weight
    if choice == "none":
        return reward_margin.new_ones(reward_margin.shape)
    if choice == "naive_focal":
        weight = focal_weight(reward_margin, gamma=config.gamma)
    else:
        margin = _policy_margin(pairs, config)
        weight = performance_weight(margin, gamma=config.gamma, tau_ref=config.tau_ref)
    if choice in ("batch_mean", "permuted"):
        return control_weight(weight, choice, counted=pairs.weight > 0)
    return weight.detach() if config.detach_weights else weight


def gate_of(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    """Returns the gate [P] of the calibrated NLL."""
    if isinstance(config.tau_good, str):
        raise ValueError("tau_good 'median' must be replaced by the median score of the data first")
    assert pairs.reference_chosen is not None  # LOSS.needs_reference
    return calibrated_nll_gate(
        pairs.policy_chosen.mean,
        pairs.reference_chosen.mean,
        pairs.score_chosen,
        tau_good=config.tau_good,
        margin=config.nll_gate_margin,
    )
