"""Three independent witnesses for Uni-DPO: a NumPy restatement, arithmetic by hand, released code.

Each comparison has a negative control: a plausible mistake that the witness must detect.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import pairs_of

from unidpo_mm.losses import uni_dpo_loss
from unidpo_mm.losses.uni_dpo import LOSS, UniDPOLossConfig

GOLDEN = json.loads((Path(__file__).parent / "golden" / "uni_dpo_loss.json").read_text())["cases"]
INPUTS = (
    "policy_chosen_logps",
    "policy_rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
    "score_chosen",
    "score_rejected",
)


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def restated(
    inputs: list[np.ndarray],
    *,
    beta: float,
    eta: float,
    gamma: float,
    tau_ref: float,
    nll_lambda: float,
    tau_good: float,
    detach_weights: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses and gradients by policy log-probs, from sections 2.2 and 2.6 of the reference."""
    p_w, p_l, q_w, q_l, s_w, s_l = inputs
    u = beta * (p_w - p_l) - tau_ref
    v = beta * ((p_w - p_l) - (q_w - q_l))
    w_qual = sigmoid(eta * (s_w - s_l))
    w_perf = (1.0 - sigmoid(u)) ** gamma
    gate = (q_w > p_w).astype(float) * (s_w >= tau_good).astype(float)
    loss = -w_qual * w_perf * np.log(sigmoid(v)) - nll_lambda * gate * p_w
    braces = 1.0 - sigmoid(v)
    if not detach_weights:
        braces = braces + gamma * sigmoid(u) * np.abs(np.log(sigmoid(v)))
    by_margin = -beta * w_qual * w_perf * braces
    return loss, by_margin - nll_lambda * gate, -by_margin


def ours(
    inputs: list[Any], *, through_config: bool = False, **parameters: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """Return losses, gradients of their sum by the two policy log-probs, and the output."""
    tensors = [torch.tensor(np.asarray(x), dtype=torch.float64) for x in inputs]
    tensors[0].requires_grad_()
    tensors[1].requires_grad_()
    if through_config:
        output = LOSS.compute(pairs_of(*tensors), UniDPOLossConfig(**parameters))
    else:
        output = uni_dpo_loss(*tensors, **parameters)
    output.per_pair.sum().backward()
    grads = [x.grad.numpy() for x in tensors[:2] if x.grad is not None]
    return output.per_pair.detach().numpy(), grads[0], grads[1], output


def golden_parameters(case: dict[str, Any]) -> dict[str, float]:
    names = {"qual_eta": "eta", "perf_gamma": "gamma"}
    return {names.get(k, k): v for k, v in case["hyperparameters"].items()}


# ---- witness 1: an independent restatement ----


def random_inputs(count: int = 200) -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    logps = [-draw.uniform(0.1, 3.0, count) for _ in range(4)]
    logps[2][:20] = logps[0][:20]  # ties of policy and reference
    scores = [draw.uniform(0, 5, count).round(1) for _ in range(2)]
    return [*logps, *scores]


SETTINGS = {
    "beta": 2.0,
    "eta": 0.7,
    "gamma": 3.0,
    "tau_ref": 2.0,
    "nll_lambda": 0.2,
    "tau_good": 2.5,
}


@pytest.mark.parametrize("through_config", [False, True])
@pytest.mark.parametrize("detach_weights", [False, True])
@pytest.mark.parametrize(
    "changed",
    [{}, {"beta": 10.0, "tau_ref": 0.8}, {"gamma": 1.0}, {"gamma": 0.0, "eta": 0.0}, {"eta": 2.0}],
)
def test_loss_and_gradient_equal_the_numpy_restatement(
    changed: dict[str, float], detach_weights: bool, through_config: bool
) -> None:
    settings: dict[str, Any] = {**SETTINGS, **changed, "detach_weights": detach_weights}
    inputs = random_inputs()
    expected = restated(inputs, **settings)
    results = ours(inputs, through_config=through_config, **settings)
    for actual, desired in zip(results[:3], expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau_ref": 2.0 * SETTINGS["beta"]},  # subtracted before the scale instead of after it
        {"eta": -0.7},
        {"gamma": 2.0},
        {"detach_weights": True},
        {"tau_good": 3.5},
        {"nll_lambda": -0.2},
    ],
)
def test_the_numpy_restatement_detects_mistakes(wrong: dict[str, Any]) -> None:
    results = ours(random_inputs(), **SETTINGS)
    expected = restated(random_inputs(), **{**SETTINGS, **wrong})
    assert not all(
        np.allclose(actual, desired, rtol=1e-6)
        for actual, desired in zip(results[:3], expected, strict=True)
    )


def test_the_hand_derived_gradient_equals_central_differences() -> None:
    inputs = random_inputs(50)
    inputs[0] += 1e-3 * (inputs[0] == inputs[2])  # the gate is not differentiable at a tie
    step = 1e-6
    _, by_chosen, by_rejected = restated(inputs, **SETTINGS)
    for number, expected in ((0, by_chosen), (1, by_rejected)):
        up, down = list(inputs), list(inputs)
        up[number], down[number] = inputs[number] + step, inputs[number] - step
        slope = (restated(up, **SETTINGS)[0] - restated(down, **SETTINGS)[0]) / (2 * step)
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-8)


# ---- witness 2: by hand ----

HALF_LN3 = math.log(3) / 2
BY_HAND = [
    [-1.0, -2.0, -1.0],
    [-1.0 - HALF_LN3, -2.0, -1.0 + HALF_LN3],
    [-0.5, -2.0, -0.5],
    [-0.5, -2.0 - HALF_LN3, -0.5 + HALF_LN3],
    [3.0, 4.0, 2.0],
    [2.0, 4.0, 3.0],
]
BY_HAND_SETTINGS = {
    "beta": 2.0,
    "eta": math.log(3),
    "gamma": 2.0,
    "tau_ref": 0.0,
    "nll_lambda": 0.1,
    "tau_good": 3.0,
}


@pytest.mark.parametrize("detach_weights", [False, True])
def test_three_pairs_computed_by_hand(detach_weights: bool) -> None:
    """sigma(ln 3) = 3/4, sigma(0) = 1/2, sigma(-ln 3) = 1/4; beta 2, gamma 2, tau_ref 0, eta ln 3.

    Pair 1. p_w - p_l = ln3/2, so u = ln 3 and w_perf = (1 - 3/4)^2 = 1/16. The reference gap is 0,
            so v = ln 3 and -log sigma(v) = ln(4/3). S_w - S_l = 1, so w_qual = 3/4.
            q_w = -0.5 > p_w = -1 and S_w = 3 = tau_good: the gate is open, NLL = 1.
            loss = 3/4 * 1/16 * ln(4/3) + 0.1 * 1 = 3/64 ln(4/3) + 0.1
            d/dp_l = beta * 3/64 * (1 - 3/4 + gamma * 3/4 * ln(4/3)) = 3/32 (1/4 + 3/2 ln(4/3))
            d/dp_w = -d/dp_l - 0.1
    Pair 2. p_w = p_l, so u = 0 and w_perf = 1/4. q_w - q_l = ln3/2, so v = -ln 3 and
            -log sigma(v) = ln 4. Equal scores: w_qual = 1/2. q_w = p_w: a tie, the gate is shut.
            loss = 1/8 ln 4;  d/dp_l = 2 * 1/8 * (3/4 + 2 * 1/2 * ln 4) = 1/4 (3/4 + ln 4)
    Pair 3. u = -ln 3, w_perf = (3/4)^2 = 9/16. The reference has the same gap: v = 0, ln 2.
            Scores the wrong way round: w_qual = 1/4. q_w > p_w, but S_w = 2 < 3: shut.
            loss = 9/64 ln 2;  d/dp_l = 2 * 9/64 * (1/2 + 2 * 1/4 * ln 2) = 9/64 (1 + ln 2)
    Detached, the second summand in the parentheses is gone.
    """
    loss, by_chosen, by_rejected, output = ours(
        BY_HAND, **BY_HAND_SETTINGS, detach_weights=detach_weights
    )
    ln2, ln4, ln43 = math.log(2), math.log(4), math.log(4 / 3)
    np.testing.assert_allclose(
        loss, [3 / 64 * ln43 + 0.1, ln4 / 8, 9 / 64 * ln2], rtol=0, atol=1e-12
    )
    rejected = [3 / 32 * (1 / 4 + 3 / 2 * ln43), (3 / 4 + ln4) / 4, 9 / 64 * (1 + ln2)]
    if detach_weights:
        rejected = [3 / 128, 3 / 16, 9 / 64]
    np.testing.assert_allclose(by_rejected, rejected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        by_chosen, [-rejected[0] - 0.1, -rejected[1], -rejected[2]], rtol=0, atol=1e-12
    )
    assert output.terms["w_qual"].tolist() == pytest.approx([3 / 4, 1 / 2, 1 / 4], abs=1e-12)
    assert output.terms["w_perf"].tolist() == pytest.approx([1 / 16, 1 / 4, 9 / 16], abs=1e-12)
    assert output.terms["nll_gate"].tolist() == [1.0, 0.0, 0.0]
    margins = (output.chosen_rewards - output.rejected_rewards).tolist()
    assert margins == pytest.approx([math.log(3), -math.log(3), 0.0], abs=1e-12)


# ---- witness 3: the released code ----


@pytest.mark.parametrize("through_config", [False, True])
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_values_and_gradients_equal_the_released_code(
    case: dict[str, Any], through_config: bool
) -> None:
    inputs = [case["inputs"][name] for name in INPUTS]
    expected = case["expected"]
    loss, by_chosen, by_rejected, output = ours(
        inputs, through_config=through_config, **golden_parameters(case)
    )
    count = len(loss)  # the recorded gradients are those of the mean
    for actual, name in (
        (loss, "losses"),
        (output.chosen_rewards.numpy(), "chosen_rewards"),
        (output.rejected_rewards.numpy(), "rejected_rewards"),
        (by_chosen / count, "grad_policy_chosen_logps"),
        (by_rejected / count, "grad_policy_rejected_logps"),
    ):
        np.testing.assert_allclose(actual, expected[name], rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("wrong", [{"gamma": 2.999}, {"eta": 0.701}, {"detach_weights": True}])
def test_the_recorded_numbers_detect_mistakes(wrong: dict[str, Any]) -> None:
    case = GOLDEN[0]
    inputs = [case["inputs"][name] for name in INPUTS]
    loss, by_chosen, _, _ = ours(inputs, **{**golden_parameters(case), **wrong})
    same_loss = np.allclose(loss, case["expected"]["losses"], rtol=0, atol=1e-10)
    recorded = case["expected"]["grad_policy_chosen_logps"]
    assert not (same_loss and np.allclose(by_chosen / len(loss), recorded, rtol=0, atol=1e-10))


def test_the_recorded_cases_open_the_gate_for_some_pairs_and_not_for_others() -> None:
    for case in GOLDEN:
        gate = ours([case["inputs"][n] for n in INPUTS], **golden_parameters(case))[3]
        assert 0 < gate.terms["nll_gate"].sum() < len(case["inputs"]["score_chosen"])


# ---- the table in section 2.8 of the reference ----

TABLE = [
    [-1.0, -0.5, -2.0, -0.8],
    [-1.2, -1.5, -1.0, -0.8],
    [-0.9, -0.7, -1.5, -0.8],
    [-1.0, -1.0, -1.2, -0.9],
    [4.0, 3.0, 2.0, 5.0],
    [1.0, 2.5, 2.0, 4.0],
]
TABLE_SETTINGS = {**SETTINGS, "nll_lambda": 0.001}


def test_the_table_of_section_2_8() -> None:
    loss, by_chosen, by_rejected, output = ours(TABLE, **TABLE_SETTINGS)
    terms = output.terms
    assert terms["w_qual"].tolist() == pytest.approx([0.890903, 0.586618, 0.5, 0.668188], abs=1e-6)
    assert terms["w_perf"].tolist() == pytest.approx(
        [0.575969, 0.125, 0.947006, 0.683325], abs=1e-6
    )
    margins = output.chosen_rewards - output.rejected_rewards
    assert margins.tolist() == pytest.approx([0.2, 1.4, -1.4, -0.2], abs=1e-12)
    assert terms["nll_gate"].tolist() == [1, 0, 0, 0]
    assert loss == pytest.approx([0.307924, 0.016163, 0.767273, 0.364422], abs=1e-6)
    assert by_chosen == pytest.approx([-0.772335, -0.077498, -0.842475, -0.762738], abs=1e-6)
    assert by_rejected == pytest.approx(-by_chosen - np.array([0.001, 0, 0, 0]), abs=1e-9)
    detached = ours(TABLE, **TABLE_SETTINGS, detach_weights=True)[1]
    assert detached == pytest.approx([-0.462989, -0.029011, -0.759673, -0.502097], abs=1e-6)


@pytest.mark.parametrize(("tau_ref", "ratio"), [(0.8, 2.29), (1.0, 2.12), (2.0, 1.50)])
def test_the_undetached_gradient_is_larger_at_the_start_as_in_section_2_6(
    tau_ref: float, ratio: float
) -> None:
    start = [[-1.0], [-1.0], [-1.0], [-1.0], [3.0], [1.0]]
    settings = {**SETTINGS, "tau_ref": tau_ref}
    full, detached = (ours(start, **settings, detach_weights=d)[1][0] for d in (False, True))
    assert full / detached == pytest.approx(ratio, abs=0.005)
