"""Gamma-PO: every pair has its own target margin, larger for pairs the model is sure about.

The average target margin is fixed, and is distributed over the pairs: ambiguous pairs, which may be
label errors, have to win by little, and clear ones by much. So gamma-PO raises the weight of what
Uni-DPO's w_perf lowers.

Source: arXiv 2506.03690: with margins r of N pairs, the targets are gamma_i = gamma0 N p_i, where p
minimizes mean(-log sigmoid(r_i - gamma_i)) + tau KL(p, uniform). As in the authors' code, 20 steps
of exponentiated gradient find p, over the pairs of the batch and earlier ones. These are a random
sample of the earlier margins of each process there, and the last ones of all processes here.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import gather_objects
from ..records import LossOutput, PairLogps
from .base import POSITIVE, Loss, LossConfig, Positive, always, implicit_rewards, loss_output

__all__ = ["LOSS", "GammaPOLossConfig", "MarginQueue"]

STEPS = 20
"""Steps of exponentiated gradient."""
QUEUE = 256
"""Maximum number of margins over which the targets are distributed."""


@dataclass(frozen=True, kw_only=True)
class GammaPOLossConfig(LossConfig):
    """Parameters of gamma-PO; the defaults are those of a released configuration."""

    variant: Literal["simpo", "dpo"] = "simpo"
    """``simpo``: mean log-probs, no reference; ``dpo``: log-ratios, targets around 0."""
    beta: Positive = 10.0
    """Reward scale, > 0; about 0.1 for ``dpo``."""
    gamma_beta_ratio: Annotated[float, POSITIVE] = 0.4
    """Mean target margin gamma0 / beta, > 0; ``dpo`` subtracts it from all targets."""
    tau: Annotated[float, POSITIVE] = 10.0
    """Strength of the penalty on unequal targets, > 0; for a large one the loss is SimPO or DPO."""


@dataclass
class MarginQueue:
    """The last reward margins of a run, of all processes."""

    margins: list[float] = field(default_factory=list)

    def add(self, margins: Tensor) -> None:
        """Add the finite margins of a micro-batch of every process; the oldest ones go."""
        finite = margins[margins.isfinite()].tolist()  # a NaN would stay for many steps
        new = [margin for part in gather_objects(finite) for margin in part]
        self.margins = (self.margins + new)[-QUEUE:]


def _targets(margins: Tensor, gamma0: Tensor, tau: float) -> Tensor:
    """Return the target margin of each of N reward margins, [N], with mean `gamma0`."""
    rate = min(0.5 / tau, 1.0)
    log_np = torch.zeros_like(margins)  # log(N p)
    for _ in range(STEPS):
        slope = gamma0 * torch.sigmoid(gamma0 * log_np.exp() - margins)
        log_np = log_np - rate * (slope + tau * log_np)
        log_np = log_np - torch.logsumexp(log_np, 0) + math.log(len(log_np))
    return gamma0 * log_np.exp()


def _compute(pairs: PairLogps, config: GammaPOLossConfig, state: MarginQueue) -> LossOutput:
    if config.variant == "dpo":
        chosen, rejected = implicit_rewards(pairs, beta=config.beta)
    else:
        chosen = config.beta * pairs.policy_chosen.mean
        rejected = config.beta * pairs.policy_rejected.mean
    margin, counted = chosen - rejected, pairs.weight > 0
    now = margin.detach()[counted]
    earlier = state.margins[-max(QUEUE - len(now), 1) :]
    if margin.requires_grad:  # an evaluation leaves the state as it is
        state.add(now)
    target = torch.zeros_like(margin)
    if len(now):
        every = torch.cat([now.new_tensor(earlier), now])
        # sources may have different values of beta; the mean target is that of the batch
        gamma0 = (config.gamma_beta_ratio * config.beta + torch.zeros_like(margin))[counted].mean()
        target[counted] = _targets(every, gamma0, config.tau)[-len(now) :]
        if config.variant == "dpo":
            target = target - gamma0
    loss = -F.logsigmoid(margin - target)
    return loss_output(loss, chosen, rejected, target_margin=target)


LOSS = Loss(
    name="gamma_po",
    config=GammaPOLossConfig,
    compute=_compute,
    terms=("target_margin",),
    needs_reference=lambda config: config.variant == "dpo",
    batch_dependent=always,
    initial_state=MarginQueue,
)
