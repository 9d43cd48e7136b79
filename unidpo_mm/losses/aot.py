"""AOT, Alignment via Optimal Transport: compares the distributions of a batch instead of pairs.

The margins of the policy, sorted, are asked to exceed those of the reference, sorted: good
responses are to be better on the whole, whichever pair they belong to. ``unpaired`` sorts the
rewards of all chosen and of all rejected responses instead, and needs no pairs at all.

Source: arXiv 2406.05882, with the logistic loss, as `aot` and `aot_unpaired` in TRL. A pair has the
loss of its own margin, or of its chosen response, at its place in the order of the micro-batch.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, Value, always, fraction, implicit_rewards, loss_output

__all__ = ["LOSS", "AOTLossConfig"]


@dataclass(frozen=True, kw_only=True)
class AOTLossConfig(LossConfig):
    """Parameters of AOT."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    variant: Literal["paired", "unpaired"] = "paired"
    """Sorted values: margins of policy and reference, or rewards of the two kinds of responses."""
    label_smoothing: Annotated[Value, fraction(0.5)] = 0.0
    """Assumed fraction of flipped preferences, in [0, 0.5)."""


def _at_same_place(values: Tensor, among: Tensor, counted: Tensor) -> Tensor:
    """Return for each of `values` [P] the one of `among` [P] at the same place in the order."""
    order = torch.where(counted, values.detach(), torch.inf).argsort(stable=True)
    other = torch.where(counted, among.detach(), torch.inf).argsort(stable=True)
    return torch.zeros_like(among).index_copy(0, order, among[other])


def _compute(pairs: PairLogps, config: AOTLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta)
    counted = pairs.weight > 0  # fillers come last in every order
    if config.variant == "paired":
        assert pairs.reference_chosen is not None  # Loss.needs_reference
        assert pairs.reference_rejected is not None
        policy = config.beta * (pairs.policy_chosen.sum - pairs.policy_rejected.sum)
        reference = config.beta * (pairs.reference_chosen.sum - pairs.reference_rejected.sum)
        delta = policy - _at_same_place(policy, reference, counted)
    else:
        delta = chosen - _at_same_place(chosen, rejected, counted)
    flipped = config.label_smoothing
    loss = -(1 - flipped) * F.logsigmoid(delta) - flipped * F.logsigmoid(-delta)
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="aot", config=AOTLossConfig, compute=_compute, batch_dependent=always)
