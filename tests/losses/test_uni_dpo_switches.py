"""The switches of `UniDPOLossConfig`, its parameters per pair, and its limits."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from builders import pairs_of
from torch import Tensor

from unidpo_mm.losses import uni_dpo_loss
from unidpo_mm.losses.dpo import LOSS as DPO
from unidpo_mm.losses.dpo import DPOLossConfig
from unidpo_mm.losses.uni_dpo import LOSS, UniDPOLossConfig
from unidpo_mm.losses.weights import calibrated_nll_gate, control_weight, quality_weight
from unidpo_mm.records import LossOutput, PairLogps

CHOSEN = torch.tensor([-1.0, -0.5, -2.0, -0.8], dtype=torch.float64)
REJECTED = torch.tensor([-1.2, -1.5, -1.0, -0.8], dtype=torch.float64)
REFERENCE = ([-0.9, -0.7, -1.5, -0.8], [-1.0, -1.0, -1.2, -0.9])
SCORES = ([4.0, 3.0, 2.0, 5.0], [1.0, 2.5, 2.0, 4.0])
LENGTHS = ([3.0, 5.0, 2.0, 7.0], [4.0, 1.0, 6.0, 2.0])


def make_pairs(*, grad: bool = False, weight: Any = None, lengths: Any = LENGTHS) -> PairLogps:
    sides = [CHOSEN.clone(), REJECTED.clone()]
    if grad:
        sides = [tensor.requires_grad_() for tensor in sides]
    return pairs_of(*sides, *REFERENCE, *SCORES, lengths=lengths, weight=weight)


def compute(pairs: PairLogps | None = None, **parameters: Any) -> LossOutput:
    config = UniDPOLossConfig(**{"tau_good": 2.5, **parameters})
    return LOSS.compute(pairs or make_pairs(), config)


def preference_part(output: LossOutput, weight: Tensor | float) -> Tensor:
    assert output.chosen_rewards is not None
    assert output.rejected_rewards is not None
    return -weight * F.logsigmoid(output.chosen_rewards - output.rejected_rewards)


def test_the_configurable_loss_equals_the_formula_at_its_defaults_in_values_and_gradients() -> None:
    results = []
    for configurable in (True, False):
        chosen, rejected = (x.clone().requires_grad_() for x in (CHOSEN, REJECTED))
        if configurable:
            pairs = pairs_of(chosen, rejected, *REFERENCE, *SCORES, lengths=LENGTHS)
            output = LOSS.compute(pairs, UniDPOLossConfig(tau_good=2.5))
        else:
            rest = [torch.tensor(x, dtype=torch.float64) for x in (*REFERENCE, *SCORES)]
            output = uni_dpo_loss(chosen, rejected, *rest, tau_good=2.5)
        output.per_pair.sum().backward()
        assert chosen.grad is not None
        assert rejected.grad is not None
        results.append((output.per_pair.detach(), chosen.grad, rejected.grad, output.terms))
    for left, right in zip(*(values[:3] for values in results), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    for name, values in results[0][3].items():
        torch.testing.assert_close(values, results[1][3][name], rtol=1e-12, atol=0)


def test_the_defaults_are_those_of_the_released_settings() -> None:
    config = UniDPOLossConfig()
    assert (config.beta, config.eta, config.gamma, config.tau_ref) == (2.0, 0.7, 3.0, 2.0)
    assert (config.nll_lambda, config.tau_good, config.sft_weight) == (0.001, "median", 0.0)
    assert not config.detach_weights


# ---- weights ----


def test_quality_weight_none_is_weight_one() -> None:
    output = compute(quality_weight="none", nll_lambda=0)
    assert output.terms["w_qual"].tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(output.per_pair, preference_part(output, output.terms["w_perf"]))


def test_performance_weight_none_is_weight_one() -> None:
    output = compute(performance_weight="none", nll_lambda=0)
    assert output.terms["w_perf"].tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(output.per_pair, preference_part(output, output.terms["w_qual"]))


def test_the_naive_focal_weight_depends_on_the_reward_margin() -> None:
    output = compute(performance_weight="naive_focal")
    margins = torch.tensor([0.2, 1.4, -1.4, -0.2], dtype=torch.float64)
    torch.testing.assert_close(output.terms["w_perf"], (1 - torch.sigmoid(margins)) ** 3)
    assert not torch.allclose(output.terms["w_perf"], compute().terms["w_perf"])


def test_the_stabilized_weight_does_not_depend_on_the_reference() -> None:
    pairs = make_pairs()
    assert pairs.reference_chosen is not None
    moved = dataclasses.replace(pairs, reference_chosen=pairs.policy_rejected)
    stable = [compute(p).terms["w_perf"] for p in (pairs, moved)]
    naive = [compute(p, performance_weight="naive_focal").terms["w_perf"] for p in (pairs, moved)]
    assert torch.equal(*stable)
    assert not torch.allclose(*naive)


@pytest.mark.parametrize("which", ["quality_weight", "performance_weight"])
def test_batch_mean_gives_every_counted_pair_the_mean_and_no_gradient(which: str) -> None:
    term = {"quality_weight": "w_qual", "performance_weight": "w_perf"}[which]
    counted = [1, 0, 1, 2]
    pairs = make_pairs(weight=counted)
    weights = compute(pairs).terms[term]
    controlled = compute(pairs, **{which: "batch_mean"}).terms[term]
    mean = float(weights[[0, 2, 3]].mean())
    assert controlled[[0, 2, 3]].tolist() == pytest.approx([mean] * 3)


def test_permuted_keeps_the_multiset_of_the_counted_weights_and_leaves_fillers_alone() -> None:
    weight = torch.arange(1.0, 41.0)
    counted = torch.ones(40, dtype=torch.bool)
    counted[::4] = False
    permuted = control_weight(weight, "permuted", counted=counted)
    assert torch.equal(permuted[~counted], weight[~counted])
    assert not torch.equal(permuted[counted], weight[counted])
    assert torch.equal(permuted[counted].sort().values, weight[counted])


def test_every_permutation_is_new_and_follows_the_global_seed() -> None:
    weight, counted = torch.arange(40.0), torch.ones(40, dtype=torch.bool)

    def draw() -> list[float]:
        return control_weight(weight, "permuted", counted=counted).tolist()

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.manual_seed(5)
    assert draw() == first
    assert first != second


@pytest.mark.parametrize("control", ["batch_mean", "permuted"])
def test_controls_stop_the_gradient_through_the_weight(control: Any) -> None:
    gradients = []
    for choice in (control, "stabilised"):
        chosen = CHOSEN.clone().requires_grad_()
        pairs = pairs_of(chosen, REJECTED, *REFERENCE, *SCORES)
        output = compute(pairs, performance_weight=choice, nll_lambda=0)
        output.per_pair.sum().backward()
        assert chosen.grad is not None
        assert output.chosen_rewards is not None
        assert output.rejected_rewards is not None
        margin = output.chosen_rewards - output.rejected_rewards
        weight = output.terms["w_qual"] * output.terms["w_perf"]
        gradients.append((chosen.grad, -2.0 * weight * torch.sigmoid(-margin)))
    torch.testing.assert_close(*gradients[0])
    assert not torch.allclose(*gradients[1])  # the stabilized weight has a gradient


@pytest.mark.parametrize("control", ["batch_mean", "permuted"])
@pytest.mark.parametrize("which", ["quality_weight", "performance_weight"])
def test_controls_are_declared_batch_dependent(which: str, control: str) -> None:
    assert LOSS.batch_dependent(UniDPOLossConfig(**{which: control}))
    assert not LOSS.batch_dependent(UniDPOLossConfig())
    assert not LOSS.batch_dependent(UniDPOLossConfig(performance_weight="naive_focal"))


# ---- NLL terms ----


def test_nll_lambda_zero_switches_the_calibrated_nll_off() -> None:
    output = compute(nll_lambda=0.0)
    weight = output.terms["w_qual"] * output.terms["w_perf"]
    torch.testing.assert_close(output.per_pair, preference_part(output, weight))
    assert compute(nll_lambda=0.5).per_pair[0] > output.per_pair[0]


def test_sft_weight_adds_the_nll_of_every_chosen_response() -> None:
    added = compute(sft_weight=0.3).per_pair - compute().per_pair
    torch.testing.assert_close(added, 0.3 * -CHOSEN)


def test_no_scores_are_needed_without_quality_weight_and_nll() -> None:
    assert LOSS.needs_scores(UniDPOLossConfig())
    assert LOSS.needs_scores(UniDPOLossConfig(quality_weight="none"))
    assert LOSS.needs_scores(UniDPOLossConfig(nll_lambda=0.0))
    assert not LOSS.needs_scores(UniDPOLossConfig(quality_weight="none", nll_lambda=0.0))


# ---- length normalization ----


def test_length_norm_off_gives_summed_dpo_times_the_weights() -> None:
    pairs = make_pairs()
    output = compute(pairs, length_norm=False, nll_lambda=0.0, beta=0.1)
    dpo = DPO.compute(pairs, DPOLossConfig(beta=0.1))
    margin = 0.1 * (pairs.policy_chosen.sum - pairs.policy_rejected.sum)
    w_perf = (1 - torch.sigmoid(margin - 2.0)) ** 3
    torch.testing.assert_close(output.terms["w_perf"], w_perf)
    torch.testing.assert_close(output.per_pair, output.terms["w_qual"] * w_perf * dpo.per_pair)


@pytest.mark.parametrize(
    "length_norm",
    [(), ("margin",), ("performance",), ("nll",), ("margin", "nll"), ("margin", "performance")],
)
def test_length_norm_applies_to_the_listed_places_only(length_norm: Any) -> None:
    pairs = make_pairs()
    output = compute(pairs, length_norm=length_norm, beta=0.5, nll_lambda=0.2, tau_ref=0.3)

    def logps(which: str, use: str) -> Tensor:
        responses = getattr(pairs, which)
        return responses.sum / responses.length if use in length_norm else responses.sum

    def gap(model: str, use: str) -> Tensor:
        return logps(f"{model}_chosen", use) - logps(f"{model}_rejected", use)

    margin = 0.5 * (gap("policy", "margin") - gap("reference", "margin"))
    w_perf = (1 - torch.sigmoid(0.5 * gap("policy", "performance") - 0.3)) ** 3
    w_qual = torch.sigmoid(0.7 * (pairs.score_chosen - pairs.score_rejected))
    gate = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    nll = -logps("policy_chosen", "nll")
    expected = -w_qual * w_perf * torch.log(torch.sigmoid(margin)) + 0.2 * gate * nll
    torch.testing.assert_close(output.per_pair, expected)


def test_length_norm_true_and_false_mean_all_places_and_none() -> None:
    everything = compute(length_norm=("margin", "performance", "nll")).per_pair
    assert torch.equal(compute(length_norm=True).per_pair, everything)
    assert torch.equal(compute(length_norm=False).per_pair, compute(length_norm=()).per_pair)
    assert not torch.allclose(everything, compute(length_norm=False).per_pair)


# ---- limits ----


def test_without_eta_gamma_and_lambda_it_is_exactly_half_of_length_normalized_dpo() -> None:
    gradients, values = [], []
    for halved in (True, False):
        pairs = make_pairs()
        chosen = CHOSEN.clone().requires_grad_()
        pairs = pairs_of(chosen, REJECTED, *REFERENCE, *SCORES, lengths=LENGTHS)
        if halved:
            output = compute(pairs, eta=0.0, gamma=0.0, nll_lambda=0.0)
        else:
            output = DPO.compute(pairs, DPOLossConfig(beta=2.0, length_norm=True))
        output.per_pair.sum().backward()
        assert chosen.grad is not None
        values.append(output.per_pair.detach())
        gradients.append(chosen.grad)
    torch.testing.assert_close(values[0], values[1] / 2, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1] / 2, rtol=1e-14, atol=0)


# ---- parameters per pair ----


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("beta", [2.0, 10.0, 3.5, 1.0]),
        ("eta", [0.7, 0.1, 2.0, 0.0]),
        ("gamma", [3.0, 1.0, 0.0, 2.0]),
        ("tau_ref", [2.0, 0.8, 1.0, -1.0]),
        ("nll_lambda", [0.2, 0.0, 0.1, 0.3]),
        ("tau_good", [4.5, 3.0, 2.0, 5.0]),
    ],
)
def test_a_parameter_per_pair_equals_the_same_numbers_one_by_one(
    name: str, values: list[float]
) -> None:
    together = compute(**{name: torch.tensor(values, dtype=torch.float64)}).per_pair
    alone = torch.stack([compute(**{name: v}).per_pair[n] for n, v in enumerate(values)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)
    assert any(not torch.allclose(together, compute(**{name: v}).per_pair) for v in values)


def test_tau_good_median_must_be_replaced_first() -> None:
    with pytest.raises(ValueError, match=r"tau_good.*median"):
        compute(tau_good="median")


# ---- the gate and the scores ----


def test_the_gate_is_strict_on_log_probs_and_not_strict_on_the_score() -> None:
    policy = torch.tensor([-1.0, -1.0, -1.0, -1.0])
    reference = torch.tensor([-1.0, -0.999, -0.999, -1.001])
    score = torch.tensor([5.0, 3.0, 2.999, 5.0])
    gate = calibrated_nll_gate(policy, reference, score, tau_good=3.0)
    assert gate.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_a_score_at_tau_good_counts_under_bf16_log_probs() -> None:
    # bf16 rounds 3.2 to 3.203125, which would put the good response below the threshold
    assert torch.tensor(3.2, dtype=torch.bfloat16).item() != pytest.approx(3.2, abs=1e-4)
    policy = torch.tensor([-1.0, -1.0], dtype=torch.bfloat16)
    reference = torch.tensor([-0.5, -0.5], dtype=torch.bfloat16)
    score = torch.tensor([3.2, 3.199], dtype=torch.float64)
    assert calibrated_nll_gate(policy, reference, score, tau_good=3.2).tolist() == [1.0, 0.0]
    output = uni_dpo_loss(policy, policy, reference, policy, score, score, tau_good=3.2)
    assert output.terms["nll_gate"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("margin", "weight"), [(0, 0.50), (1, 0.67), (2, 0.80), (3, 0.89), (5, 0.97), (8, 0.996)]
)
def test_w_qual_by_score_margin_as_in_section_2_3(margin: float, weight: float) -> None:
    w_qual = quality_weight(torch.tensor(margin + 1.0), torch.tensor(1.0), eta=0.7)
    assert float(w_qual) == pytest.approx(weight, abs=0.005)


def test_mis_ordered_scores_have_a_weight_below_one_half() -> None:
    assert float(quality_weight(torch.tensor(1.0), torch.tensor(2.0), eta=0.7)) < 0.5


def test_extreme_margins_keep_loss_and_gradient_finite() -> None:
    for gap in (1e3, -1e3):
        chosen = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.float64)
        output = uni_dpo_loss(chosen, zero, zero, zero, zero + 3, zero, tau_good=2.5)
        output.per_pair.sum().backward()
        assert chosen.grad is not None
        assert output.per_pair.isfinite().all()
        assert chosen.grad.isfinite().all()
        assert math.isfinite(float(output.terms["w_perf"]))
