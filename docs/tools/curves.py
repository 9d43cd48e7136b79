"""The weights of Uni-DPO in NumPy, for the plots of the site, which is built without torch.

`tests/docs/test_site.py` compares each function with the one that training uses
(`unidpo_mm/losses/weights.py`, `uni_dpo.py`).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["nll_gate", "pair_loss", "performance_weight", "quality_weight", "sigmoid"]

Array = NDArray[np.float64]


def sigmoid(values: Array) -> Array:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-values))


def quality_weight(score_margin: Array, *, eta: float) -> Array:
    """Return w_qual for the score of the chosen response minus that of the rejected one."""
    return sigmoid(eta * score_margin)


def performance_weight(policy_margin: Array, *, gamma: float, tau_ref: float) -> Array:
    """Return w_perf for beta times the difference of the policy's mean log-probs per token."""
    return (1 - sigmoid(policy_margin - tau_ref)) ** gamma


def nll_gate(likelihood_change: Array, score: float, *, tau_good: float) -> Array:
    """Return the gate of the calibrated NLL for policy minus reference log-prob per token."""
    return ((likelihood_change < 0) & (score >= tau_good)).astype(np.float64)


def pair_loss(
    reward_margin: Array, policy_margin: Array, *, w_qual: float, gamma: float, tau_ref: float
) -> Array:
    """Return the preference term of the loss, without the NLL."""
    w_perf = performance_weight(policy_margin, gamma=gamma, tau_ref=tau_ref)
    return -w_qual * w_perf * np.log(sigmoid(reward_margin))
