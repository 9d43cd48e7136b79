"""What the switches of Uni-DPO make of weights and gate."""

import math

from torch import Tensor

from ..records import PairLogps, SequenceLogps
from ._uni_dpo_config import UniDPOLossConfig
from .weights import (
    calibrated_nll_gate,
    control_weight,
    focal_weight,
    performance_weight,
    quality_weight,
)

__all__ = ["gate_of", "logps_of", "performance_of", "quality_of"]


def logps_of(side: SequenceLogps, mean: bool) -> Tensor:
    """Return [P], log-probabilities a token or summed."""
    return side.mean if mean else side.sum


def _policy_margin(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    mean = config.normalises("performance")
    return config.beta * (
        logps_of(pairs.policy_chosen, mean) - logps_of(pairs.policy_rejected, mean)
    )


def quality_of(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    """Return w_qual [P] as configured."""
    choice = config.quality_weight
    if choice == "none":
        return pairs.policy_chosen.sum.new_ones(pairs.policy_chosen.sum.shape)
    weight = quality_weight(
        pairs.score_chosen,
        pairs.score_rejected,
        eta=config.eta,
        missing=config.missing_quality,
    )
    return weight if choice == "score" else control_weight(weight, choice, counted=pairs.weight > 0)


def performance_of(pairs: PairLogps, config: UniDPOLossConfig, reward_margin: Tensor) -> Tensor:
    """Return w_perf [P] as configured; only the naive focal weight looks at the reward margin."""
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
    """Return the gate [P] of the calibrated NLL."""
    if isinstance(config.tau_good, str):
        raise ValueError("tau_good 'median' must be replaced by the median score of the data first")
    assert pairs.reference_chosen is not None  # LOSS.needs_reference
    scored = pairs.score_chosen.where(~pairs.score_rejected.isnan(), math.nan)
    return calibrated_nll_gate(
        pairs.policy_chosen.mean,
        pairs.reference_chosen.mean,
        scored,  # a pair that lacks a score opens no gate
        tau_good=config.tau_good,
        margin=config.nll_gate_margin,
    )
