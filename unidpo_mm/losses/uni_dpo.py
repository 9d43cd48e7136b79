"""Uni-DPO: DPO that re-weights every pair during training, by quality and by performance.

DPO treats all preference pairs alike. Uni-DPO multiplies the loss of a pair by two weights: its
*quality* (how far apart the scores of the two responses are) and the policy's *current performance*
on it (how well the policy already separates them), so that training concentrates on clear pairs
that are not learned yet. A small NLL term keeps up the likelihood of good responses, see
`weights.py`.

Source: arXiv 2506.10054, eqs. 4, 5, 10 and 11. `uni_dpo_loss` is the paper's formula. `LOSS` builds
the same loss from parts that `UniDPOLossConfig` can switch off or replace for ablations; with its
defaults the two are equal, by test.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps, SequenceLogps
from .base import (
    FINITE,
    NONNEGATIVE,
    Loss,
    LossConfig,
    Nonnegative,
    Positive,
    Value,
    implicit_rewards,
    loss_output,
    require,
)
from .weights import (
    Control,
    calibrated_nll_gate,
    control_weight,
    focal_weight,
    performance_weight,
    quality_weight,
)

__all__ = ["LOSS", "UniDPOLossConfig", "uni_dpo_loss"]


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
    """Return the Uni-DPO loss of P pairs.

    Args:
        policy_chosen_logps: [P], mean log-probs per token of the chosen responses.
        policy_rejected_logps: [P], the same of the rejected responses.
        reference_chosen_logps: [P], chosen responses under the reference.
        reference_rejected_logps: [P], rejected responses under the reference.
        score_chosen: [P], quality scores in float32 or better.
        score_rejected: [P], the same of the rejected responses.
        beta: Reward scale.
        eta: Slope of the quality weight, 1 / score units.
        gamma: Exponent of the performance weight.
        tau_ref: Threshold of the performance weight, reward units.
        nll_lambda: Weight of the calibrated NLL.
        tau_good: Minimum score of a good response.
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
    loss = preference + nll_lambda * nll  # eq. 4
    return loss_output(
        loss, chosen_rewards, rejected_rewards, w_qual=w_qual, w_perf=w_perf, nll_gate=gate
    )


@dataclass(frozen=True, kw_only=True)
class UniDPOLossConfig(LossConfig):
    """Parameters and switches of Uni-DPO."""

    beta: Positive = 2.0
    """Reward scale, > 0."""
    eta: Nonnegative = 0.7
    """Slope of the quality weight, >= 0, 1 / score units."""
    gamma: Nonnegative = 3.0
    """Exponent of the performance weight, >= 0."""
    tau_ref: Annotated[Value, FINITE] = 2.0
    """Threshold of the performance weight, reward units."""
    nll_lambda: Nonnegative = 0.001
    """Weight of the calibrated NLL, >= 0; 0 switches it off."""
    tau_good: Value | Literal["median"] = "median"
    """Minimum score of a good response; ``median``: the median chosen score of each source."""
    missing_quality: Value | None = None
    """w_qual of pairs without scores, in [0, 1]; null: every pair needs scores."""
    nll_gate_margin: Annotated[float, NONNEGATIVE] = 0.0
    """Loss of log-prob per token that does not open the gate of the NLL yet, >= 0."""
    nll_once: bool = False
    """Whether a response chosen in several pairs counts once in the NLL, not once per pair."""
    sft_weight: Nonnegative = 0.0
    """Weight of the NLL on every chosen response, >= 0."""
    detach_weights: bool = False
    """Whether w_perf is a constant for the gradient."""
    quality_weight: Literal["score", "none"] | Control = "score"
    """``none`` is weight 1; ``batch_mean`` and ``permuted`` are controls for studies."""
    performance_weight: Literal["stabilised", "naive_focal", "none"] | Control = "stabilised"
    """``naive_focal`` is relative to the reference; the rest as for quality_weight."""
    length_norm: bool | tuple[Literal["margin", "performance", "nll"], ...] = True
    """Where log-probs are means per token: everywhere, nowhere, or in the listed places."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing_quality is not None:
            require("missing_quality", self.missing_quality, _is_weight, "within [0, 1]")
        if not isinstance(self.tau_good, str):
            require("tau_good", self.tau_good, lambda value: ~value.isnan(), "a number")

    def normalizes(self, place: Literal["margin", "performance", "nll"]) -> bool:
        """Return whether log-probs in this place are means per token."""
        return self.length_norm if isinstance(self.length_norm, bool) else place in self.length_norm


def _is_weight(value: Tensor) -> Tensor:
    # NaN: a source whose pairs all have scores
    return ((value >= 0) & (value <= 1)) | value.isnan()


def _compute(pairs: PairLogps, config: UniDPOLossConfig) -> LossOutput:
    chosen_rewards, rejected_rewards = implicit_rewards(
        pairs, beta=config.beta, length_norm=config.normalizes("margin")
    )
    reward_margin = chosen_rewards - rejected_rewards
    w_qual = _quality(pairs, config)
    w_perf = _performance(pairs, config, reward_margin)
    gate = _gate(pairs, config)
    nll = -_logps(pairs.policy_chosen, mean=config.normalizes("nll"))
    if config.nll_once and pairs.chosen_pairs is not None:
        nll = nll / pairs.chosen_pairs
    preference = -w_qual * w_perf * F.logsigmoid(reward_margin)
    loss = preference + (config.nll_lambda * gate + config.sft_weight) * nll  # eq. 4
    return loss_output(
        loss, chosen_rewards, rejected_rewards, w_qual=w_qual, w_perf=w_perf, nll_gate=gate
    )


def _logps(responses: SequenceLogps, *, mean: bool) -> Tensor:
    return responses.mean if mean else responses.sum


def _quality(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
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


def _performance(pairs: PairLogps, config: UniDPOLossConfig, reward_margin: Tensor) -> Tensor:
    """Return w_perf [P] as configured; only the naive focal weight uses the reward margin."""
    choice = config.performance_weight
    if choice == "none":
        return reward_margin.new_ones(reward_margin.shape)
    if choice == "naive_focal":
        weight = focal_weight(reward_margin, gamma=config.gamma)
    else:
        mean = config.normalizes("performance")
        policy_margin = config.beta * (
            _logps(pairs.policy_chosen, mean=mean) - _logps(pairs.policy_rejected, mean=mean)
        )
        weight = performance_weight(policy_margin, gamma=config.gamma, tau_ref=config.tau_ref)
    if choice in ("batch_mean", "permuted"):
        return control_weight(weight, choice, counted=pairs.weight > 0)
    return weight.detach() if config.detach_weights else weight


def _gate(pairs: PairLogps, config: UniDPOLossConfig) -> Tensor:
    """Return the gate [P] of the calibrated NLL; pairs that lack a score open none."""
    if isinstance(config.tau_good, str):
        raise ValueError("tau_good 'median' must be replaced by the median score of the data first")
    assert pairs.reference_chosen is not None  # LOSS.needs_reference
    return calibrated_nll_gate(
        pairs.policy_chosen.mean,
        pairs.reference_chosen.mean,
        pairs.score_chosen.where(~pairs.score_rejected.isnan(), math.nan),
        tau_good=config.tau_good,
        margin=config.nll_gate_margin,
    )


def _uses_scores(config: UniDPOLossConfig) -> bool:
    uses_nll = bool(torch.as_tensor(config.nll_lambda > 0).any())
    return config.missing_quality is None and (config.quality_weight != "none" or uses_nll)


def _is_batch_dependent(config: UniDPOLossConfig) -> bool:
    controls = {"batch_mean", "permuted"}
    return bool(controls & {config.quality_weight, config.performance_weight})


LOSS = Loss(
    name="uni_dpo",
    config=UniDPOLossConfig,
    compute=_compute,
    terms=("w_qual", "w_perf", "nll_gate"),
    needs_scores=_uses_scores,
    batch_dependent=_is_batch_dependent,
)
