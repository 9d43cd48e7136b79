"""The three ideas of Uni-DPO as functions of tensors: two weights and a calibrated NLL.

Equation numbers are those of the Uni-DPO paper, arXiv 2506.10054. Everything is [P]: one entry per
preference pair. Parameters are numbers or tensors [P].
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Value

__all__ = [
    "Control",
    "calibrated_nll_gate",
    "control_weight",
    "focal_weight",
    "performance_weight",
    "quality_weight",
]

Control = Literal["batch_mean", "permuted"]


def quality_weight(
    score_chosen: Tensor, score_rejected: Tensor, *, eta: Value, missing: Value | None = None
) -> Tensor:
    """Return w_qual [P]: how much better the chosen answer was judged.

    0.5 for equal scores, towards 1 for a clear preference, below 0.5 for mis-ordered scores.

    Args:
        score_chosen: [P], in float32 or better: rounding moves the weight. NaN where there is none.
        score_rejected: [P], likewise.
        eta: Slope, 1 / score units.
        missing: The weight of pairs that lack a score; None leaves them NaN.
    """
    weight = torch.sigmoid(eta * (score_chosen - score_rejected))  # eq. 5
    if missing is None:
        return weight
    return torch.where(weight.isnan(), torch.as_tensor(missing).to(weight), weight)


def performance_weight(policy_margin: Tensor, *, gamma: Value, tau_ref: Value) -> Tensor:
    """Return w_perf [P], the stabilised focal weight: near 1 where the policy still does badly.

    Args:
        policy_margin: [P], beta times the gap of the policy's own log-probabilities; the reference
            has no part in it.
        gamma: Exponent >= 0.
        tau_ref: Threshold in the unit of `policy_margin` (reward units).
    """
    # (1 - sigmoid(u))^gamma through its logarithm: exact and with a finite gradient for large u
    return torch.exp(gamma * F.logsigmoid(tau_ref - policy_margin))  # eq. 10


def focal_weight(reward_margin: Tensor, *, gamma: Value) -> Tensor:
    """Return the naive focal weight [P] that the paper rejects, for ablations.

    It judges each pair against its own reference gap, so easy and hard mean something else for
    every pair.
    """
    return torch.exp(gamma * F.logsigmoid(-reward_margin))  # eq. 7


def calibrated_nll_gate(
    policy_chosen: Tensor,
    reference_chosen: Tensor,
    score_chosen: Tensor,
    *,
    tau_good: Value,
    margin: float = 0.0,
) -> Tensor:
    """Return the gate of the calibrated NLL [P]: 1 for good answers that the policy is losing.

    Strict on the log-probabilities, so that a policy equal to its reference opens no gate; not
    strict on the score. A margin > 0 keeps the gate shut for losses of up to it, a token.
    """
    losing = reference_chosen - margin > policy_chosen
    good = score_chosen >= tau_good
    return (losing & good).to(policy_chosen.dtype)  # eq. 11


def control_weight(weight: Tensor, control: Control, *, counted: Tensor) -> Tensor:
    """Return a weight with its link to the pairs cut, as a control for studies.

    Args:
        weight: [P], the weight as computed.
        control: ``batch_mean`` gives every pair the mean of the micro-batch, ``permuted`` the
            weight of another pair of it, drawn by torch's global generator.
        counted: [P] bool, false for fillers, which take no part.

    Returns:
        [P], without gradient.
    """
    weight = weight.detach()
    result = weight.clone()
    if control == "batch_mean":
        result[counted] = weight[counted].mean()
        return result
    if control != "permuted":
        raise ValueError(f"a control is batch_mean or permuted, found {control}")
    order = torch.randperm(int(counted.sum()), device="cpu").to(weight.device)
    result[counted] = weight[counted][order]
    return result
