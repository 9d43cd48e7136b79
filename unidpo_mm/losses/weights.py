"""The pair weights of Uni-DPO and the gate of its calibrated NLL.

Uni-DPO multiplies the DPO loss of a pair by two weights. The *quality weight* is large if the
scores of the two responses are far apart. The *performance weight* is large while the policy does
not separate the two responses yet, and shrinks as it learns to. The *calibrated NLL* is a
likelihood term that a gate switches on for good chosen responses whose likelihood has dropped below
the reference.

Equation numbers are those of the paper, arXiv 2506.10054. Everything is [P], one entry per
preference pair; parameters are numbers or tensors [P].
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
    """Return w_qual [P]: how far apart the scores of the two responses are.

    0.5 for equal scores, near 1 for a clear preference, below 0.5 for mis-ordered scores.

    Args:
        score_chosen: [P], in float32 or better, because rounding moves the weight. NaN if missing.
        score_rejected: [P], in the same precision; NaN if missing.
        eta: Slope, 1 / score units.
        missing: The weight of pairs without scores; `None` leaves them NaN.
    """
    weight = torch.sigmoid(eta * (score_chosen - score_rejected))  # eq. 5
    if missing is None:
        return weight
    return torch.where(weight.isnan(), torch.as_tensor(missing).to(weight), weight)


def performance_weight(policy_margin: Tensor, *, gamma: Value, tau_ref: Value) -> Tensor:
    """Return w_perf [P], the stabilized focal weight: near 1 while the policy does badly.

    Args:
        policy_margin: [P], beta times the difference of the policy's log-probs of chosen and
            rejected response. The reference plays no part in it.
        gamma: Exponent, >= 0.
        tau_ref: Threshold in the unit of `policy_margin` (reward units).
    """
    # (1 - sigmoid(u))^gamma through its logarithm: exact and with a finite gradient for large u
    return torch.exp(gamma * F.logsigmoid(tau_ref - policy_margin))  # eq. 10


def focal_weight(reward_margin: Tensor, *, gamma: Value) -> Tensor:
    """Return the naive focal weight [P], which the paper rejects; for ablations.

    It measures each pair against the reference's own margin of that pair, so that "easy" and "hard"
    mean something else for every pair.
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
    """Return the gate of the calibrated NLL [P], 1 for good responses losing likelihood, else 0.

    The comparison of log-probs is strict, so that a policy equal to its reference opens no gate;
    the comparison of scores is not.

    Args:
        policy_chosen: [P], mean log-probs per token of the chosen responses.
        reference_chosen: [P], the same under the reference.
        score_chosen: [P], their scores.
        tau_good: Minimum score of a good response.
        margin: Loss of log-prob per token that does not open the gate yet.
    """
    losing = reference_chosen - margin > policy_chosen
    good = score_chosen >= tau_good
    return (losing & good).to(policy_chosen.dtype)  # eq. 11


def control_weight(weight: Tensor, control: Control, *, counted: Tensor) -> Tensor:
    """Return weights that no longer belong to their pairs, as a control for studies.

    Args:
        weight: [P], the computed weights.
        control: ``batch_mean`` gives every pair the mean weight of the micro-batch, ``permuted``
            the weight of another of its pairs, drawn by torch's global generator.
        counted: [P] bool, false for fillers, which keep their weight.

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
