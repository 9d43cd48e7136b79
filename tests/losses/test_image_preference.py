"""The image preference, against values computed by hand."""

import dataclasses
from typing import Any

import pytest
import torch
from builders import pairs_of, side
from support.hand_case import log1pexp, two_pairs

from unidpo_mm.errors import RecipeError
from unidpo_mm.losses.image_preference import with_image_preference
from unidpo_mm.metric_names import IMAGE_TERMS
from unidpo_mm.plugins import load_loss
from unidpo_mm.records import PairLogps
from unidpo_mm.training.configured_loss import add_image_preference, configure_loss

HAS_VIEW = torch.tensor([True, False])


def with_views(pairs: PairLogps, has_view: torch.Tensor = HAS_VIEW) -> PairLogps:
    """Return pairs whose first chosen response has the sums -5 and -3 with the other image."""
    return dataclasses.replace(
        pairs,
        policy_view=side([-2.5, -4.5], [2.0, 2.0]),
        reference_view=side([-1.5, -4.5], [2.0, 2.0]),
        has_view=has_view,
    )


def compute(name: str, parameters: Any, pairs: PairLogps, **weights: float) -> Any:
    loss = load_loss(name)
    carrying = with_image_preference(loss, **{"weight": 1.0, "anchor": 0.0, **weights})
    config = loss.config(**parameters)
    state = () if loss.initial_state is None else (loss.initial_state(),)
    plain = loss.compute(pairs, config, *state).per_unit
    state = () if loss.initial_state is None else (loss.initial_state(),)
    return carrying.compute(pairs, config, *state), plain


def test_dpo_with_image_preference_is_mdpo() -> None:
    """The log-ratio of the first chosen response is -1 with its image, -2 with the other one."""
    output, plain = compute("dpo", {"beta": 0.5}, with_views(two_pairs()), weight=0.7, anchor=0.2)
    image, anchor = log1pexp(-0.5 * (-1 - -2)), log1pexp(-0.5 * -1)
    added = (output.per_unit - plain).tolist()
    assert added == pytest.approx([0.7 * image + 0.2 * anchor, 0.0], rel=1e-12)
    assert output.terms["image_loss"].tolist() == pytest.approx([image, 0.0], rel=1e-12)
    assert output.terms["image_margin"].tolist() == pytest.approx([0.5, 0.0], rel=1e-12)


def test_rewards_are_those_of_the_loss() -> None:
    """SimPO has means per token and no reference: -1 with the image, -2.5 with the other one."""
    parameters = {"beta": 2.0, "simpo_gamma": 0.5}
    output, _ = compute("simpo", parameters, with_views(two_pairs()))
    assert output.terms["image_margin"].tolist() == pytest.approx([2 * (-1 + 2.5), 0.0], rel=1e-12)


def test_the_weights_of_a_pair_apply() -> None:
    parameters = {"tau_good": 2.5, "detach_weights": True}
    pairs = with_views(two_pairs())
    output, plain = compute("uni_dpo", parameters, pairs, weight=3.0)
    weight = output.terms["w_qual"] * output.terms["w_perf"]
    assert 0 < weight[0] < 1
    added = output.per_unit - plain
    torch.testing.assert_close(added, 3 * weight * output.terms["image_loss"])
    assert added[0] > 0


def test_gradients_pull_the_image_up_and_the_other_one_down() -> None:
    chosen = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    view = torch.tensor([-5.0, -9.0], dtype=torch.float64, requires_grad=True)
    pairs = with_views(two_pairs())
    pairs = dataclasses.replace(
        pairs,
        policy_chosen=side(chosen, [2.0, 2.0]),
        policy_view=side(view, [2.0, 2.0]),
    )
    output, plain = compute("dpo", {}, pairs)
    by_chosen, by_view = torch.autograd.grad((output.per_unit - plain).sum(), (chosen, view))
    assert by_chosen[0] < 0 < by_view[0]
    assert by_chosen[1] == by_view[1] == 0


def test_without_other_images_nothing_is_added() -> None:
    output, plain = compute("dpo", {}, two_pairs())
    assert torch.equal(output.per_unit, plain)
    assert all(not output.terms[name].any() for name in IMAGE_TERMS)


@pytest.mark.parametrize("name", ["alpha_dpo", "beta_dpo", "gamma_po"])
def test_the_state_of_a_loss_is_that_of_its_pairs(name: str) -> None:
    loss = load_loss(name)
    assert loss.initial_state is not None
    carrying = with_image_preference(loss, weight=1.0, anchor=0.5)
    plain, carried = loss.initial_state(), loss.initial_state()
    for _ in range(3):
        pairs = with_views(two_pairs())
        config = loss.config(**({"keep": 1.0} if name == "beta_dpo" else {}))
        loss.compute(pairs, config, plain)
        carrying.compute(pairs, config, carried)
    assert plain == carried


LOSSES = ["da_dpo", "f_dpo", "ld_dpo", "mpo", "orpo", "aot", "exo", "wpo", "ipo"]


@pytest.mark.parametrize("name", LOSSES)
def test_other_losses_have_it(name: str) -> None:
    pairs = pairs_of(
        [-1.0, -2.0], [-1.5, -1.0], [-0.5, -3.0], [-1.5, -0.75], [4.0, 2.0], [2.0, 1.0]
    )
    pairs = with_views(pairs)
    if load_loss(name).needs_tokens(load_loss(name).config()):
        sides = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
        pairs = dataclasses.replace(
            pairs,
            **{
                item: dataclasses.replace(getattr(pairs, item), tokens=tokens)
                for item in (*sides, "policy_view", "reference_view")
                for tokens in [getattr(pairs, item).sum.unsqueeze(-1)]
            },
        )
    output, plain = compute(name, {}, pairs)
    added = output.per_unit - plain
    assert added.isfinite().all()
    assert added[0] > 0
    assert added[1] == 0


def test_losses_without_pairs_refuse_it() -> None:
    for name in ("sft", "kto"):
        with pytest.raises(RecipeError, match=rf"train.image_preference: the loss '{name}' has no"):
            with_image_preference(load_loss(name), weight=1.0, anchor=0.0)


def test_an_anchor_needs_a_reference() -> None:
    weights = {"weight": 1.0, "anchor": 0.5}
    assert add_image_preference(configure_loss("dpo", {}), weights).image_preference == weights
    with pytest.raises(RecipeError, match=r"train\.image_preference\.anchor: the anchor compares"):
        add_image_preference(configure_loss("simpo", {}), weights)


def test_a_loss_without_reference_needs_none() -> None:
    pairs = with_views(two_pairs())
    pairs = dataclasses.replace(pairs, reference_chosen=None, reference_rejected=None)
    output, _ = compute("simpo", {}, dataclasses.replace(pairs, reference_view=None))
    assert output.per_unit.isfinite().all()
