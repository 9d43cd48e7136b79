"""Image preference: a term that any loss of pairs can have.

The chosen response is preferred with its image over the same response with another image, so that
the image must matter. With r, the reward of the loss, image v and other image v':

    weight * -log sigmoid(r(chosen, v) - r(chosen, v'))  +  anchor * -log sigmoid(r(chosen, v))

With DPO, this is the conditional preference and the anchor of mDPO, arXiv 2406.11839. The weights
of a pair, the terms of the loss whose names start with ``w_``, multiply the first part, too. The
terms that are added are the first part without weights and its margin, 0 for pairs without v'.
"""

import copy
import dataclasses
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import Problem, RecipeError
from ..metric_names import IMAGE_TERMS
from ..records import LossOutput, PairLogps
from .base import Loss

__all__ = ["with_image_preference"]


def with_image_preference(loss: Loss, *, weight: float, anchor: float) -> Loss:
    """Return a loss with the term.

    Args:
        loss: A loss of pairs.
        weight: Weight of the preference for the image, >= 0.
        anchor: Weight of the anchor, >= 0.

    Raises:
        RecipeError: If the loss has no pairs.
    """
    if loss.unit != "pair" or loss.needs_labels:
        text = f"the loss '{loss.name}' has no pairs of responses"
        remedy = "Choose another loss, or set train.image_preference to null"
        raise RecipeError(Problem("train.image_preference", text, remedy))
    compute = functools.partial(_compute, loss, weight, anchor)
    return dataclasses.replace(loss, compute=compute, terms=(*loss.terms, *IMAGE_TERMS))


def _compute(
    loss: Loss, weight: float, anchor: float, pairs: PairLogps, config: Any, *state: Any
) -> LossOutput:
    before = copy.deepcopy(state)  # only the pairs themselves count in the state
    output: LossOutput = loss.compute(pairs, config, *state)
    added = margin = term = torch.zeros_like(output.per_unit)
    if pairs.has_view is None and before:
        # a state may be shared by all processes, which have to compute as often as each other
        pairs = dataclasses.replace(
            pairs,
            policy_view=pairs.policy_rejected,
            reference_view=pairs.reference_rejected,
            has_view=torch.zeros_like(pairs.weight).bool(),
        )
    if pairs.has_view is not None and pairs.policy_view is not None:
        nothing = torch.zeros_like(output.per_unit)
        image_pairs = dataclasses.replace(
            pairs, policy_rejected=pairs.policy_view, reference_rejected=pairs.reference_view
        )
        image_margin = _margin(loss, image_pairs, config, before)
        margin = torch.where(pairs.has_view, image_margin, nothing)
        term = torch.where(pairs.has_view, -F.logsigmoid(image_margin), nothing)
        added = weight * output.pair_weight * term
        if anchor:
            reward = _margin(loss, _against_reference(pairs), config, before)
            added = added + anchor * torch.where(pairs.has_view, -F.logsigmoid(reward), nothing)
    terms = {**output.terms, "image_loss": term.detach(), "image_margin": margin.detach()}
    return dataclasses.replace(
        output, per_unit=output.per_unit + added, pair_loss=output.per_unit, terms=terms
    )


def _margin(loss: Loss, pairs: PairLogps, config: Any, state: tuple[Any, ...]) -> Tensor:
    """Return the reward margin of pairs with its gradient, without a change of the state."""
    margin = loss.compute(pairs, config, *copy.deepcopy(state)).reward_margin
    if margin is None:
        text = f"the loss '{loss.name}' returns no reward margin"
        remedy = "Return loss_output(...) from its compute function"
        raise RecipeError(Problem("train.image_preference", text, remedy))
    result: Tensor = margin
    return result


def _against_reference(pairs: PairLogps) -> PairLogps:
    """Return pairs whose rejected response has the reward 0, because policy and reference agree."""
    assert pairs.reference_chosen is not None  # checked when the loss was configured
    return dataclasses.replace(
        pairs, policy_rejected=pairs.reference_chosen, reference_rejected=pairs.reference_chosen
    )
