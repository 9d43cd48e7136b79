"""Uni-DPO: preference pairs weighted by their quality and by the policy's present performance.

Source: arXiv 2506.10054, eqs. 4, 5, 10 and 11. `uni_dpo_loss` is the paper's formula;
`UniDPOLossConfig` switches its components for ablations and equals it at its defaults.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps, SequenceLogps
from .base import Loss, Value, always, require
from .weights import (
    Control,
    calibrated_nll_gate,
    control_weight,
    focal_weight,
    performance_weight,
    quality_weight,
)

__all__ = ["LOSS", "UniDPOLossConfig", "uni_dpo_loss"]

TERMS = ("w_qual", "w_perf", "nll_gate")


def uni_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    score_chosen: Tensor,
    score_rejected: Tensor,
    *,
    beta: Value = 2.0,
    eta: Value = 0.7,
    gamma: Value = 3.0,
    tau_ref: Value = 2.0,
    nll_lambda: Value = 0.001,
    tau_good: Value,
    detach_weights: bool = False,
) -> LossOutput:
    """Returns the Uni-DPO loss of P pairs.

    Args:
        policy_chosen_logps: [P], length-normalised log-probabilities of the chosen answers.
        policy_rejected_logps: [P], the same of the rejected answers.
        reference_chosen_logps: [P], chosen answers under the reference.
        reference_rejected_logps: [P], rejected answers under the reference.
        score_chosen: [P], quality scores in float32 or better.
        score_rejected: [P], the same of the rejected answers.
        beta: Reward scale.
        eta: Slope of the quality weight, 1 / score units.
        gamma: Exponent of the performance weight.
        tau_ref: Threshold of the performance weight, reward units.
        nll_lambda: Weight of the calibrated NLL.
        tau_good: Least score of a good answer.
        detach_weights: Whether w_perf is a constant for the gradient. The released code
            differentiates through it, so False is the default.

    Returns:
        The loss of each pair, implicit rewards, and the terms w_qual, w_perf and nll_gate.
    """
    policy_margin = beta * (policy_chosen_logps - policy_rejected_logps)
    chosen_rewards = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - reference_rejected_logps)
    w_qual = quality_weight(score_chosen, score_rejected, eta=eta)  # eq. 5
    w_perf = performance_weight(policy_margin, gamma=gamma, tau_ref=tau_ref)  # eq. 10
    gate = calibrated_nll_gate(
        policy_chosen_logps, reference_chosen_logps, score_chosen, tau_good=tau_good
    )
    if detach_weights:
        w_perf = w_perf.detach()
    nll = -gate * policy_chosen_logps  # eq. 11
    preference = -w_qual * w_perf * F.logsigmoid(chosen_rewards - rejected_rewards)
    return LossOutput(
        per_unit=preference + nll_lambda * nll,  # eq. 4
        chosen_rewards=chosen_rewards.detach(),
        rejected_rewards=rejected_rewards.detach(),
        terms={"w_qual": w_qual.detach(), "w_perf": w_perf.detach(), "nll_gate": gate.detach()},
    )


@dataclass(frozen=True, kw_only=True)
class UniDPOLossConfig:
    """Parameters and switches of Uni-DPO."""

    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012 - read by pydantic

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
        require("beta", self.beta, lambda value: (value > 0) & value.isfinite(), "> 0 and finite")
        for name in ("eta", "gamma", "nll_lambda", "sft_weight"):
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


def _logps(side: SequenceLogps, mean: bool) -> Tensor:
    return side.mean if mean else side.sum


def _policy_margin(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    mean = config.normalises("performance")
    return config.beta * (_logps(pairs.policy_chosen, mean) - _logps(pairs.policy_rejected, mean))


def _quality(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    choice = config.quality_weight
    if choice == "none":
        return pairs.policy_chosen.sum.new_ones(pairs.policy_chosen.sum.shape)
    weight = quality_weight(pairs.score_chosen, pairs.score_rejected, eta=config.eta)
    return weight if choice == "score" else control_weight(weight, choice, counted=pairs.weight > 0)


def _performance(pairs: PairLogps, config: UniDPOLossConfig, reward_margin: Tensor) -> Tensor:
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


def _gate(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    if isinstance(config.tau_good, str):
        raise ValueError("tau_good 'median' must be replaced by the median score of the data first")
    assert pairs.reference_chosen is not None  # LOSS.needs_reference
    return calibrated_nll_gate(
        pairs.policy_chosen.mean,
        pairs.reference_chosen.mean,
        pairs.score_chosen,
        tau_good=config.tau_good,
    )


def _compute(pairs: PairLogps, config: UniDPOLossConfig) -> LossOutput:
    assert pairs.reference_chosen is not None  # LOSS.needs_reference
    assert pairs.reference_rejected is not None
    mean = config.normalises("margin")
    chosen = _logps(pairs.policy_chosen, mean) - _logps(pairs.reference_chosen, mean)
    rejected = _logps(pairs.policy_rejected, mean) - _logps(pairs.reference_rejected, mean)
    chosen_rewards, rejected_rewards = config.beta * chosen, config.beta * rejected
    reward_margin = chosen_rewards - rejected_rewards
    w_qual = _quality(pairs, config)
    w_perf = _performance(pairs, config, reward_margin)
    gate = _gate(pairs, config)
    nll = -_logps(pairs.policy_chosen, config.normalises("nll"))
    preference = -w_qual * w_perf * F.logsigmoid(reward_margin)
    return LossOutput(
        per_unit=preference + (config.nll_lambda * gate + config.sft_weight) * nll,  # eq. 4
        chosen_rewards=chosen_rewards.detach(),
        rejected_rewards=rejected_rewards.detach(),
        terms={"w_qual": w_qual.detach(), "w_perf": w_perf.detach(), "nll_gate": gate.detach()},
    )


def _uses_scores(config: UniDPOLossConfig) -> bool:
    uses_nll = bool(torch.as_tensor(config.nll_lambda > 0).any())
    return config.quality_weight != "none" or uses_nll


LOSS = Loss(
    name="uni_dpo",
    config=UniDPOLossConfig,
    unit="pair",
    compute=_compute,
    terms=TERMS,
    needs_reference=always,
    needs_scores=_uses_scores,
    batch_dependent=lambda config: (
        {config.quality_weight, config.performance_weight} & {"batch_mean", "permuted"} != set()
    ),
)
