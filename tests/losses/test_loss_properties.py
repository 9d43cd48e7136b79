"""Properties of every loss."""

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args, get_type_hints

import hypothesis.strategies as st
import pytest
import torch
from builders import pairs_of, side
from hypothesis import given, settings

from unidpo_mm.errors import RecipeError
from unidpo_mm.losses import base
from unidpo_mm.losses.base import Loss
from unidpo_mm.plugins import LOSSES as LOSS_KIND
from unidpo_mm.plugins import load_loss, plugin_names
from unidpo_mm.records import LossOutput, PairLogps, SequenceLogps

LOSSES: list[Loss] = [load_loss(name) for name in plugin_names(LOSS_KIND)]
PAIR_LOSSES = [loss for loss in LOSSES if loss.unit == "pair" and not loss.needs_labels]

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
every_pair_loss = pytest.mark.parametrize("loss", PAIR_LOSSES, ids=lambda loss: loss.name)

LOGP = st.floats(-30.0, 0.0)
SCORE = st.floats(-5.0, 10.0)
LENGTH = st.integers(1, 300)
PAIR = st.tuples(LOGP, LOGP, LOGP, LOGP, SCORE, SCORE, LENGTH, LENGTH)
PAIRS = st.lists(PAIR, min_size=1, max_size=6)
Drawn = list[tuple[float, ...]]


def config_of(loss: Loss, **changed: Any) -> Any:
    names = {field.name for field in dataclasses.fields(loss.config)}
    return loss.config(**{**({"tau_good": 2.5} if "tau_good" in names else {}), **changed})


def compute(loss: Loss, inputs: Any, config: Any) -> LossOutput:
    """Return the loss of a first batch, also of a stateful loss."""
    state = () if loss.initial_state is None else (loss.initial_state(),)
    return loss.compute(inputs, config, *state)


ALWAYS_OF_A_BATCH = {"beta_dpo", "dr_dpo", "alpha_dpo", "gamma_po", "aot"}
"""Losses that depend on the batch with every configuration."""

SEPARABLE = {
    "uni_dpo": {"tau_good": 2.5},
    "bco": {"shift": 0.25},
    "mpo": {"losses": {"dpo": 0.8, "sft": 1.0}},
    "kto": {"kl": "none"},
}
"""Parameters that make a batch-dependent loss independent of its batch."""


def tensors_of(drawn: Drawn) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*drawn, strict=True)]


def pairs_from(columns: list[torch.Tensor], *, swapped: bool = False) -> PairLogps:
    p_w, p_l, q_w, q_l, s_w, s_l, n_w, n_l = columns
    if swapped:
        p_w, p_l, q_w, q_l, s_w, s_l, n_w, n_l = p_l, p_w, q_l, q_w, s_l, s_w, n_l, n_w
    return pairs_of(p_w, p_l, q_w, q_l, s_w, s_l, lengths=(n_w, n_l))


def inputs_of(loss: Loss, columns: list[torch.Tensor]) -> PairLogps | SequenceLogps:
    if loss.needs_labels:
        return dataclasses.replace(pairs_from(columns), good=columns[4] > columns[5])
    if loss.unit == "pair":
        return pairs_from(columns)
    return side(columns[0], columns[6])


@every_loss
@settings(max_examples=20, deadline=None)
@given(drawn=PAIRS)
def test_loss_and_gradient_are_finite(loss: Loss, drawn: Drawn) -> None:
    columns = tensors_of(drawn)
    columns[0].requires_grad_()
    columns[1].requires_grad_()
    output = compute(loss, inputs_of(loss, columns), config_of(loss))
    assert output.per_unit.shape == (len(drawn),)
    assert output.per_unit.isfinite().all()
    output.per_unit.sum().backward()
    assert columns[0].grad is not None
    assert columns[0].grad.isfinite().all()


@pytest.mark.parametrize("loss", PAIR_LOSSES, ids=lambda loss: loss.name)
@settings(max_examples=10, deadline=None)
@given(drawn=st.lists(PAIR, min_size=2, max_size=6))
def test_only_a_batch_dependent_loss_depends_on_other_pairs(loss: Loss, drawn: Drawn) -> None:
    config = config_of(loss)
    columns = tensors_of(drawn)
    alone = compute(loss, pairs_from([column[:1] for column in columns]), config).per_unit
    if not loss.batch_dependent(config):
        together = compute(loss, pairs_from(columns), config).per_unit[:1]
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@every_loss
@settings(max_examples=12, deadline=None)
@given(drawn=PAIRS, data=st.data())
def test_the_order_of_units_does_not_matter(loss: Loss, drawn: Drawn, data: Any) -> None:
    order = data.draw(st.permutations(range(len(drawn))))
    config = config_of(loss, **({"keep": 1.0} if loss.name == "beta_dpo" else {}))  # no sampling
    straight = compute(loss, inputs_of(loss, tensors_of(drawn)), config).per_unit
    shuffled = compute(
        loss, inputs_of(loss, tensors_of([drawn[n] for n in order])), config
    ).per_unit
    expected = straight[list(order)]
    if loss.name == "aot":  # pairs with equal margins may change places
        shuffled, expected = shuffled.sort().values, expected.sort().values
    torch.testing.assert_close(shuffled, expected, rtol=1e-12, atol=1e-12)


@every_loss
@settings(max_examples=12, deadline=None)
@given(drawn=PAIRS)
def test_a_unit_has_the_same_loss_in_a_batch_of_its_own(loss: Loss, drawn: Drawn) -> None:
    config = config_of(loss, **SEPARABLE.get(loss.name, {}))
    if loss.batch_dependent(config):
        assert loss.name in ALWAYS_OF_A_BATCH
        return
    together = compute(loss, inputs_of(loss, tensors_of(drawn)), config).per_unit
    alone = [compute(loss, inputs_of(loss, tensors_of([unit])), config).per_unit for unit in drawn]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


@every_pair_loss
@settings(max_examples=12, deadline=None)
@given(drawn=PAIRS)
def test_swapping_chosen_and_rejected_negates_the_reward_margin(loss: Loss, drawn: Drawn) -> None:
    margins = []
    for swapped in (False, True):
        output = compute(loss, pairs_from(tensors_of(drawn), swapped=swapped), config_of(loss))
        assert output.chosen_rewards is not None
        assert output.rejected_rewards is not None
        margins.append(output.chosen_rewards - output.rejected_rewards)
    torch.testing.assert_close(margins[0], -margins[1], rtol=1e-12, atol=1e-12)


@every_pair_loss
@settings(max_examples=12, deadline=None)
@given(drawn=PAIRS, constant=st.floats(-5, 5))
def test_adding_a_constant_to_both_policy_log_probs_keeps_the_margin(
    loss: Loss, drawn: Drawn, constant: float
) -> None:
    config = config_of(loss, **({"divergence": "reverse_kl"} if loss.name == "f_dpo" else {}))
    columns = tensors_of(drawn)
    columns[6] = columns[7]  # equal lengths: a constant on means is then one on sums too
    moved = [columns[0] + constant, columns[1] + constant, *columns[2:]]
    margins = []
    for values in (columns, moved):
        output = compute(loss, pairs_from(values), config)
        assert output.chosen_rewards is not None
        assert output.rejected_rewards is not None
        margins.append(output.chosen_rewards - output.rejected_rewards)
    torch.testing.assert_close(margins[0], margins[1], rtol=1e-9, atol=1e-9)


@every_pair_loss
@settings(max_examples=12, deadline=None)
@given(drawn=PAIRS)
def test_weights_are_between_zero_and_one(loss: Loss, drawn: Drawn) -> None:
    largest = len(drawn) if loss.name == "dr_dpo" else 1  # its weights have the mean 1
    terms = compute(loss, pairs_from(tensors_of(drawn)), config_of(loss)).terms
    for name, values in terms.items():
        if name.startswith("w_") or name.endswith("gate"):
            assert ((values >= 0) & (values <= largest + 1e-9)).all(), name


WITH_BETA_PER_PAIR = [
    loss
    for loss in PAIR_LOSSES
    if torch.Tensor in get_args(get_type_hints(loss.config).get("beta"))
]


@pytest.mark.parametrize("loss", WITH_BETA_PER_PAIR, ids=lambda loss: loss.name)
def test_a_beta_per_pair_is_accepted_in_every_batch(loss: Loss) -> None:
    """Sources may have different values of beta; some batches have fillers, or differ in size."""
    state = () if loss.initial_state is None else (loss.initial_state(),)
    for count in (3, 2, 4):
        chosen = torch.linspace(-2, -1, count, dtype=torch.float64, requires_grad=True)
        other = torch.full_like(chosen, -1.5).detach()
        weight = [0.0] + [1.0] * (count - 1)
        pairs = pairs_of(chosen, other, other, other, other * 0 + 3, other * 0, weight=weight)
        beta = torch.linspace(0.5, 2.0, count, dtype=torch.float64)
        output = loss.compute(pairs, config_of(loss, beta=beta), *state)
        assert output.per_unit.shape == (count,)
        assert output.per_unit.isfinite().all()


@pytest.mark.parametrize("loss", [loss for loss in PAIR_LOSSES if loss.initial_state is not None])
def test_a_batch_with_nan_does_not_stay_in_the_state(loss: Loss) -> None:
    assert loss.initial_state is not None
    state = loss.initial_state()
    for values in ([-1.0, -2.0], [math.nan, -2.0], [-1.5, -2.0]):
        chosen = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        other = torch.full_like(chosen, -1.5).detach()
        pairs = pairs_of(chosen, other, other, other, other * 0, other * 0)
        config = config_of(loss, **({"keep": 1.0} if loss.name == "beta_dpo" else {}))
        output = loss.compute(pairs, config, state)
    assert output.per_unit.isfinite().all()


@every_pair_loss
def test_no_gradient_lowers_the_likelihood_of_a_chosen_response(loss: Loss) -> None:
    """Margins from -1.5 to 1.49 nats; beyond them some losses have a target."""
    settings_ = {"uni_dpo": {"nll_lambda": 0.0}, "beta_dpo": {"keep": 1.0}}.get(loss.name, {})
    chosen = torch.linspace(-3, -0.01, 20, dtype=torch.float64, requires_grad=True)
    other = torch.full_like(chosen, -1.5).detach()
    pairs = pairs_of(chosen, other, other, other, other * 0 + 3, other * 0)
    config = config_of(loss, **settings_)
    compute(loss, pairs, config).per_unit.sum().backward()
    assert chosen.grad is not None
    if loss.name == "ipo":  # it pulls margins back to its target, 5 nats at beta 0.1
        assert (chosen.grad < 0).all()
        assert chosen.detach().sub(other).max() < 1 / (2 * config.beta)
    elif loss.name == "hinge":
        assert (chosen.grad <= 0).all()
    assert (chosen.grad < 0).any()
    # DiscoPOP rises where it changes from one loss to the other
    assert (chosen.grad > 0).any() == (loss.name == "discopop")


@every_loss
def test_declared_terms_are_those_returned_and_carry_no_gradient(loss: Loss) -> None:
    columns = tensors_of([(-1.0, -2.0, -0.5, -1.5, 3.0, 1.0, 4, 5)] * 2)
    columns[0].requires_grad_()
    output = compute(loss, inputs_of(loss, columns), config_of(loss))
    assert tuple(output.terms) == loss.terms
    assert output.per_unit.requires_grad
    side_results = [*output.terms.values(), output.chosen_rewards, output.rejected_rewards]
    for values in side_results:
        assert values is None or (not values.requires_grad and values.shape == (2,))


@pytest.mark.parametrize(
    "loss", [loss for loss in PAIR_LOSSES if not loss.needs_reference(config_of(loss))]
)
def test_a_loss_that_declares_no_reference_runs_without_one(loss: Loss) -> None:
    config = config_of(loss)
    pairs = pairs_from(tensors_of([(-1.0, -2.0, -0.5, -1.5, 3.0, 1.0, 4, 5)]))
    without = dataclasses.replace(pairs, reference_chosen=None, reference_rejected=None)
    assert torch.equal(
        compute(loss, without, config).per_unit, compute(loss, pairs, config).per_unit
    )


@every_loss
def test_a_loss_that_declares_no_scores_is_the_same_without_them(loss: Loss) -> None:
    off = {"quality_weight": "none", "nll_lambda": 0.0} if loss.name == "uni_dpo" else {}
    config = config_of(loss, **off)
    if loss.name in ("mm_dpo", "da_dpo"):
        assert loss.needs_scores(config)
    if loss.needs_scores(config) or loss.unit != "pair":
        return
    columns = tensors_of([(-1.0, -2.0, -0.5, -1.5, 3.0, 1.0, 4, 5)])
    pairs = inputs_of(loss, columns)
    assert isinstance(pairs, PairLogps)
    scored = compute(loss, pairs, config).per_unit
    nothing = torch.full_like(columns[4], torch.nan)
    unscored = dataclasses.replace(pairs, score_chosen=nothing, score_rejected=nothing)
    assert torch.equal(compute(loss, unscored, config).per_unit, scored)


WRONG = [
    ("uni_dpo", "beta", 0.0),
    ("uni_dpo", "beta", float("inf")),
    ("uni_dpo", "eta", -0.25),
    ("uni_dpo", "eta", float("inf")),
    ("uni_dpo", "gamma", -1.5),
    ("uni_dpo", "nll_lambda", -0.125),
    ("uni_dpo", "sft_weight", -2.0),
    ("uni_dpo", "tau_ref", float("inf")),
    ("uni_dpo", "tau_good", float("nan")),
    ("dpo", "beta", -0.5),
    ("dpo", "label_smoothing", 0.5),
    ("dpo", "label_smoothing", -0.1),
    ("simpo", "beta", 0.0),
    ("simpo", "simpo_gamma", float("nan")),
    ("ipo", "beta", 0.0),
    ("hinge", "beta", -1.0),
    ("robust", "beta", 0.0),
    ("robust", "label_smoothing", 0.5),
    ("dpop", "beta", 0.0),
    ("dpop", "dpop_lambda", -1.0),
    ("orpo", "beta", 0.0),
    ("wpo", "beta", 0.0),
    ("mm_dpo", "beta", 0.0),
    ("mm_dpo", "scaling_rate", 0.0),
    ("mm_dpo", "scaling_weight", -0.5),
    ("bco", "beta", 0.0),
    ("bco", "shift", float("inf")),
    ("beta_dpo", "beta", 0.0),
    ("beta_dpo", "alpha", -0.5),
    ("beta_dpo", "momentum", 1.0),
    ("beta_dpo", "keep", 0.0),
    ("dr_dpo", "beta_prime", 0.0),
    ("alpha_dpo", "beta", 0.0),
    ("alpha_dpo", "alpha", -0.5),
    ("alpha_dpo", "momentum", 1.0),
    ("gamma_po", "gamma_beta_ratio", 0.0),
    ("gamma_po", "tau", 0.0),
    ("focal_po", "focal_gamma", -0.5),
    ("da_dpo", "score_range", 0.0),
    ("exo", "label_smoothing", 0.0),
    ("nca", "beta", 0.0),
    ("apo", "beta", 0.0),
    ("sppo", "beta", 0.0),
    ("discopop", "discopop_tau", 0.0),
    ("aot", "label_smoothing", 0.5),
    ("f_dpo", "alpha", float("inf")),
    ("ld_dpo", "ld_alpha", 1.5),
    ("sampo", "beta", 0.0),
    ("kto", "beta", 0.0),
    ("kto", "undesirable_weight", -0.5),
]


@pytest.mark.parametrize(("name", "parameter", "value"), WRONG)
def test_the_error_of_a_wrong_parameter_has_its_name_and_value(
    name: str, parameter: str, value: float
) -> None:
    with pytest.raises(ValueError, match=rf"^{parameter} must be .*found {value}"):
        config_of(load_loss(name), **{parameter: value})


def test_a_wrong_number_in_a_parameter_per_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="beta must be > 0"):
        config_of(load_loss("uni_dpo"), beta=torch.tensor([1.0, -1.0]))


@every_loss
def test_a_loss_is_loaded_by_its_file_name_and_has_documentation(loss: Loss) -> None:
    assert load_loss(loss.name) is loss
    assert type(loss).__name__ == "Loss"
    assert loss.config.__doc__
    assert dataclasses.is_dataclass(loss.config)
    assert loss.config.__dataclass_params__.frozen


def test_all_losses_exist() -> None:
    basic = {"uni_dpo", "dpo", "simpo", "sft", "ipo", "orpo", "dpop", "hinge", "robust", "wpo"}
    weighting = {"beta_dpo", "mm_dpo", "dr_dpo", "alpha_dpo", "gamma_po", "focal_po", "da_dpo"}
    of_trl = {"bco", "mpo", "exo", "nca", "apo", "aot", "sppo", "discopop", "f_dpo"}
    of_tokens = {"ld_dpo", "sampo"}
    of_labels = {"kto"}
    assert basic | weighting | of_trl | of_tokens | of_labels == set(plugin_names(LOSS_KIND))


def test_every_loss_file_is_short() -> None:
    folder = Path(base.__file__).parent
    files = [folder / f"{loss.name}.py" for loss in LOSSES if loss.name != "uni_dpo"]
    lengths = {path.name: len(path.read_text().splitlines()) for path in files}
    assert max(lengths.values()) < 120, lengths


def test_the_error_of_an_unknown_loss_suggests_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"unknown loss 'unidpo', did you mean 'uni_dpo'\?"):
        load_loss("unidpo")
