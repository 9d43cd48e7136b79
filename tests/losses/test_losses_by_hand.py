"""Losses against the case of `support.hand_case`, computed by hand."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from builders import pairs_of
from support.hand_case import SUMS, learning_pairs, log1pexp, losses_of, two_pairs

from unidpo_mm.errors import RecipeError
from unidpo_mm.losses import bco, beta_dpo, dpo, dpop, hinge, ipo, mm_dpo, mpo, orpo, robust, wpo
from unidpo_mm.losses.running import MarginState
from unidpo_mm.records import PairLogps
from unidpo_mm.training.configured_loss import configure_loss


def test_ipo_pulls_the_margin_to_its_target() -> None:
    """Target 1 / (2 * 0.25) = 2: on means (-0.5 - 2)^2 and (1.25 - 2)^2, on sums 9 and 1."""
    assert losses_of(ipo.LOSS, ipo.IPOLossConfig(beta=0.25)) == pytest.approx([6.25, 0.5625])
    config = ipo.IPOLossConfig(beta=0.25, length_norm=False)
    assert losses_of(ipo.LOSS, config) == pytest.approx([9.0, 1.0])


def test_ipo_pulls_a_margin_beyond_the_target_back() -> None:
    chosen = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    pairs = pairs_of(chosen, [0.0], [0.0], [0.0], [1.0], [0.0])
    ipo.LOSS.compute(pairs, ipo.IPOLossConfig(beta=0.25)).per_unit.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [4.0]  # 2 * (4 - 2)


def test_hinge_stops_at_a_margin_of_one() -> None:
    """beta 0.5: margins -0.5 and 1.5, so losses 1.5 and 0."""
    assert losses_of(hinge.LOSS, hinge.HingeLossConfig(beta=0.5)) == [1.5, 0.0]
    config = hinge.HingeLossConfig(beta=0.5, length_norm=True)
    assert losses_of(hinge.LOSS, config) == [1.25, 0.375]


def test_robust_dpo_by_hand() -> None:
    """eps 0.2, beta 1: (0.8 L(m) - 0.2 L(-m)) / 0.6 with L(m) = ln(1 + e^-m)."""
    config = robust.RobustLossConfig(beta=1.0, label_smoothing=0.2)
    expected = [(0.8 * log1pexp(-m) - 0.2 * log1pexp(m)) / 0.6 for m in SUMS]
    assert losses_of(robust.LOSS, config) == pytest.approx(expected, rel=1e-12)


def test_robust_dpo_is_unbiased_if_labels_are_flipped() -> None:
    """The mean over a clean and a flipped label, 0.8 and 0.2, is the clean DPO loss."""
    config = robust.RobustLossConfig(beta=1.0, label_smoothing=0.2)
    straight = losses_of(robust.LOSS, config)
    flipped = losses_of(robust.LOSS, config, pairs=flip(two_pairs()))
    clean = losses_of(dpo.LOSS, dpo.DPOLossConfig(beta=1.0))
    mixed = [0.8 * kept + 0.2 * swapped for kept, swapped in zip(straight, flipped, strict=True)]
    assert mixed == pytest.approx(clean, rel=1e-12)


def flip(pairs: PairLogps) -> PairLogps:
    return PairLogps(
        policy_chosen=pairs.policy_rejected,
        policy_rejected=pairs.policy_chosen,
        reference_chosen=pairs.reference_rejected,
        reference_rejected=pairs.reference_chosen,
        score_chosen=pairs.score_rejected,
        score_rejected=pairs.score_chosen,
        weight=pairs.weight,
    )


@pytest.mark.parametrize(("inside", "scale"), [(True, 0.5), (False, 1.0)])
def test_dpop_adds_a_penalty_where_the_chosen_response_lost(inside: bool, scale: float) -> None:
    """Pair 1 lost 1 nat: its margin 0.5 * -1 falls by 3, times beta if inside; pair 2 gained."""
    config = dpop.DPOPLossConfig(beta=0.5, dpop_lambda=3.0, penalty_in_beta=inside)
    expected = [log1pexp(0.5 + 3.0 * scale), log1pexp(-1.5)]
    assert losses_of(dpop.LOSS, config) == pytest.approx(expected, rel=1e-12)
    assert dpop.LOSS.compute(two_pairs(), config).terms["lost_logp"].tolist() == [1.0, 0.0]


def test_orpo_is_sft_and_an_odds_ratio_without_a_reference() -> None:
    """p = e^-1 against e^-1.5, and e^-2 against e^-1: odds p / (1 - p)."""

    def log_odds(logp: float) -> float:
        return math.log(math.exp(logp) / (1 - math.exp(logp)))

    ratios = [log_odds(-1.0) - log_odds(-1.5), log_odds(-2.0) - log_odds(-1.0)]
    expected = [
        nll + 0.25 * log1pexp(-ratio) for nll, ratio in zip([1.0, 2.0], ratios, strict=True)
    ]
    config = orpo.ORPOLossConfig(beta=0.25)
    assert losses_of(orpo.LOSS, config) == pytest.approx(expected, rel=1e-12)
    assert not orpo.LOSS.needs_reference(config)


def test_wpo_weights_pairs_by_their_probability_under_the_policy() -> None:
    """e^(-1 - 1.5) and e^(-2 - 1) times the DPO loss; the weight is a constant."""
    config = wpo.WPOLossConfig(beta=1.0)
    weights = [math.exp(-2.5), math.exp(-3.0)]
    expected = [w * log1pexp(-m) for w, m in zip(weights, SUMS, strict=True)]
    assert losses_of(wpo.LOSS, config) == pytest.approx(expected, rel=1e-12)
    chosen = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    pairs = pairs_of(chosen, [-1.0], [-1.0], [-1.0], [0.0], [0.0])
    wpo.LOSS.compute(pairs, config).per_unit.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.5 * math.exp(-2.0), rel=1e-12)


def test_mm_dpo_grows_beta_with_the_score_margin() -> None:
    """Margins 2 and -1, k = ln 2: 1 - 2^-2 = 3/4, and 0 for the mis-ordered pair."""
    config = mm_dpo.MMDPOLossConfig(beta=0.5, scaling_weight=0.8, scaling_rate=math.log(2))
    scales = [1 + 0.8 * 0.75, 1.0]
    expected = [log1pexp(-0.5 * s * m) for s, m in zip(scales, SUMS, strict=True)]
    assert losses_of(mm_dpo.LOSS, config) == pytest.approx(expected, rel=1e-12)
    terms = mm_dpo.LOSS.compute(two_pairs(), config).terms
    assert terms["beta_scale"].tolist() == pytest.approx(scales)


def test_bco_classifies_rewards_around_a_shift() -> None:
    """beta 1: rewards -1, 0 and 2, -1; their mean is 0, so the shift is 0; then 0.5."""
    expected = [log1pexp(1.0) + log1pexp(0.0), log1pexp(-2.0) + log1pexp(-1.0)]
    assert losses_of(bco.LOSS, bco.BCOLossConfig(beta=1.0)) == pytest.approx(expected, rel=1e-12)
    shifted = [log1pexp(1.5) + log1pexp(-0.5), log1pexp(-1.5) + log1pexp(-1.5)]
    config = bco.BCOLossConfig(beta=1.0, shift=0.5)
    assert losses_of(bco.LOSS, config) == pytest.approx(shifted, rel=1e-12)


def test_the_shift_of_bco_ignores_fillers() -> None:
    pairs = two_pairs()
    filler = pairs_of(
        [-1.0, -2.0], [-1.5, -1.0], [-0.5, -3.0], [-1.5, -0.75], [4.0, 2.0], [2.0, 3.0],
        lengths=([2.0, 2.0], [4.0, 4.0]), weight=[1.0, 0.0],
    )  # fmt: skip
    config = bco.BCOLossConfig(beta=1.0)
    first = losses_of(bco.LOSS, config, pairs=filler)[0]
    assert first == pytest.approx(2 * log1pexp(0.5), rel=1e-12)  # rewards -1, 0 around -1/2
    assert first != losses_of(bco.LOSS, config, pairs=pairs)[0]


# ---- mixtures ----


def test_mpo_is_the_weighted_sum_of_its_parts() -> None:
    """0.8 DPO + 0.2 BCO + mean NLL per token of the chosen response, as in the paper."""
    config = mpo.MPOLossConfig()
    assert dict(config.losses) == {"dpo": 0.8, "bco": 0.2, "sft": 1.0}
    parts = [losses_of(dpo.LOSS, dpo.DPOLossConfig()), losses_of(bco.LOSS, bco.BCOLossConfig())]
    expected = [
        0.8 * first + 0.2 * second + nll
        for first, second, nll in zip(*parts, [1.0, 2.0], strict=True)
    ]
    assert losses_of(mpo.LOSS, config) == pytest.approx(expected, rel=1e-12)


def test_mpo_passes_parameters_to_its_parts_and_needs_what_they_need() -> None:
    config = mpo.MPOLossConfig(
        losses={"simpo": 1.0, "sft": 0.5}, parameters={"sft": {"length_norm": False}}
    )
    assert not mpo.LOSS.needs_reference(config)
    assert not mpo.LOSS.batch_dependent(config)
    only = mpo.MPOLossConfig(losses={"simpo": 1.0})
    difference = [
        both - single
        for both, single in zip(losses_of(mpo.LOSS, config), losses_of(mpo.LOSS, only), strict=True)
    ]
    assert difference == pytest.approx([0.5 * 2.0, 0.5 * 4.0])  # summed: 2 and 4 nats
    assert mpo.LOSS.needs_scores(mpo.MPOLossConfig(losses={"mm_dpo": 1.0, "sft": 1.0}))
    assert mpo.LOSS.batch_dependent(mpo.MPOLossConfig())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"losses": {"dpo": -1.0}}, r"losses.dpo must be >= 0"),
        ({"losses": {"sft": 1.0}}, "must contain a pair loss"),
        ({"losses": {"dpo": 1.0}, "parameters": {"bco": {}}}, "parameters contains bco"),
        ({"losses": {"beta_dpo": 1.0}}, r"losses.beta_dpo cannot be a part"),
        ({"losses": {"mpo": 1.0, "dpo": 1.0}}, r"losses.mpo cannot be a part"),
        ({"losses": {"dpo": 1.0}, "parameters": {"dpo": {"betta": 1}}}, r"parameters.dpo: .*betta"),
        ({"losses": {"dpo": 1.0}, "parameters": {"dpo": {"beta": -1.0}}}, "beta must be > 0"),
        ({"losses": {"dppo": 1.0}}, "unknown loss 'dppo', did you mean"),
        ({"losses": {"dpo": 0.0, "sft": 1.0}}, "must contain a pair loss with a weight"),
        ({"losses": {"uni_dpo": 1.0}}, r"parameters.uni_dpo.tau_good must be a number"),
        (
            {"losses": {"bco": 1.0}, "parameters": {"bco": {"shift": "bach_mean"}}},
            "parameters.bco.shift",
        ),
        (
            {"losses": {"dpo": 1.0}, "parameters": {"dpo": {"beta": [1.0, 2.0]}}},
            "parameters.dpo.beta",
        ),
    ],
    ids=[
        "weight",
        "no pairs",
        "absent",
        "stateful",
        "itself",
        "unknown",
        "value",
        "no such loss",
        "weight 0",
        "median",
        "no such choice",
        "a list",
    ],
)
def test_an_invalid_mixture_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=message):
        configure_loss("mpo", parameters)


# ---- beta-DPO ----


def test_beta_dpo_starts_at_its_beta_and_follows_the_margin() -> None:
    """beta0 1: margins -1 and 3, mean 1. The first batch sets M0 = 1, so beta is 1; evaluating
    the same pairs afterwards gives beta = 1 + 0.5 * (1 - M0)."""
    config = beta_dpo.BetaDPOLossConfig(beta=1.0, alpha=0.5, momentum=0.5, keep=1.0)
    state = MarginState()
    first = losses_of(beta_dpo.LOSS, config, state, pairs=learning_pairs())
    assert first == pytest.approx([log1pexp(-m) for m in SUMS], rel=1e-12)
    assert (state.mean, state.std) == (1.0, 2.0)
    state.mean, state.square = 0.0, 5.0
    again = losses_of(beta_dpo.LOSS, config, state)  # no gradient: the state stays
    assert again == pytest.approx([log1pexp(-1.5 * m) for m in SUMS], rel=1e-12)
    assert state.mean == 0.0
    losses_of(beta_dpo.LOSS, config, state, pairs=learning_pairs())
    assert state.mean == 0.5  # half the old value, half this batch


def test_beta_dpo_samples_pairs_near_the_running_mean_and_keeps_the_mean_loss() -> None:
    """One of two pairs is sampled and counts twice, nearly always the pair near M0."""
    config = beta_dpo.BetaDPOLossConfig(beta=1.0, alpha=0.0, keep=0.5)
    counts = torch.zeros(2)
    for seed in range(60):
        torch.manual_seed(seed)
        # this batch makes the mean 2.8 and the deviation 0.98: pair 2 is near, pair 1 far away
        state = MarginState(mean=3.0, square=9.24 - 0.2 / 9)
        output = beta_dpo.LOSS.compute(learning_pairs(), config, state)
        assert output.terms["drawn"].sum() == 1
        assert output.per_unit.sum().item() == pytest.approx(
            2 * sum(d * log1pexp(-m) for d, m in zip(output.terms["drawn"], SUMS, strict=True))
        )
        counts += output.terms["drawn"]
    assert counts[1] >= 58


def test_beta_dpo_estimates_the_deviation_from_batches_of_one_pair() -> None:
    config = beta_dpo.BetaDPOLossConfig(beta=1.0, momentum=0.5, keep=1.0)
    state = MarginState()
    for margin in (1.0, 5.0):
        chosen = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
        pairs = pairs_of(chosen, [0.0], [0.0], [0.0], [0.0], [0.0])
        beta_dpo.LOSS.compute(pairs, config, state)
    assert (state.mean, state.std) == (3.0, 2.0)  # of 1 and 5 in equal parts


def test_beta_dpo_never_samples_a_filler_and_accepts_a_batch_of_fillers() -> None:
    config = beta_dpo.BetaDPOLossConfig(keep=0.5)
    for seed in range(20):
        torch.manual_seed(seed)
        state = MarginState(mean=3.0, square=9.01)
        output = beta_dpo.LOSS.compute(learning_pairs([1.0, 0.0]), config, state)
        assert output.terms["drawn"].tolist() == [1.0, 0.0]
    state = MarginState()
    output = beta_dpo.LOSS.compute(learning_pairs([0.0, 0.0]), config, state)
    assert output.per_unit.isfinite().all()
    assert state.mean is None


def test_beta_dpo_keeps_beta_positive() -> None:
    config = beta_dpo.BetaDPOLossConfig(beta=1.0, alpha=5.0, keep=1.0)
    state = MarginState(mean=100.0)
    terms = beta_dpo.LOSS.compute(two_pairs(), config, state).terms
    assert terms["beta_scale"].tolist() == [beta_dpo.MINIMUM_SCALE] * 2


def test_a_part_with_weight_zero_needs_no_reference() -> None:
    config = mpo.MPOLossConfig(losses={"dpo": 0.0, "simpo": 1.0})
    assert not mpo.LOSS.needs_reference(config)
    only = mpo.MPOLossConfig(losses={"simpo": 1.0})
    pairs = dataclasses.replace(two_pairs(), reference_chosen=None, reference_rejected=None)
    assert losses_of(mpo.LOSS, config, pairs=pairs) == losses_of(mpo.LOSS, only, pairs=pairs)


def test_each_run_has_a_state_of_its_own() -> None:
    first, second = (configure_loss("beta_dpo", {}) for _ in range(2))
    assert first.state is not None
    assert first.with_medians([]).state is first.state
    assert second.state is not first.state
    assert configure_loss("dpo", {}).state is None
