"""Uni-DPO: preference pairs weighted by their quality and by the policy's present performance.

Source: arXiv 2506.10054, eqs. 4, 5, 10 and 11. `uni_dpo_loss` is the paper's formula;
`_uni_dpo_config` holds the parameters that switch its components for ablations, and the loss
composed of `_uni_dpo_switches` equals the formula at their defaults.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from ._uni_dpo_config import UniDPOLossConfig
from ._uni_dpo_switches import gate_of, logps_of, performance_of, quality_of
from .base import Loss, Value, always, implicit_rewards
from .weights import calibrated_nll_gate, performance_weight, quality_weight

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
    """Return the Uni-DPO loss of P pairs.

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


def _compute(pairs: PairLogps, config: UniDPOLossConfig) -> LossOutput:
    chosen_rewards, rejected_rewards = implicit_rewards(
        pairs, beta=config.beta, length_norm=config.normalises("margin")
    )
    reward_margin = chosen_rewards - rejected_rewards
    w_qual = quality_of(pairs, config)
    w_perf = performance_of(pairs, config, reward_margin)
    gate = gate_of(pairs, config)
    nll = -logps_of(pairs.policy_chosen, config.normalises("nll"))
    if config.nll_once and pairs.chosen_pairs is not None:
        nll = nll / pairs.chosen_pairs
    preference = -w_qual * w_perf * F.logsigmoid(reward_margin)
    return LossOutput(
        per_unit=preference + (config.nll_lambda * gate + config.sft_weight) * nll,  # eq. 4
        chosen_rewards=chosen_rewards.detach(),
        rejected_rewards=rejected_rewards.detach(),
        terms={"w_qual": w_qual.detach(), "w_perf": w_perf.detach(), "nll_gate": gate.detach()},
    )


def _uses_scores(config: UniDPOLossConfig) -> bool:
    uses_nll = bool(torch.as_tensor(config.nll_lambda > 0).any())
    return config.missing_quality is None and (config.quality_weight != "none" or uses_nll)


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
