"""Losses known from TRL, against the case of `support.hand_case`, computed by hand."""

import math

import pytest
import torch
from builders import pairs_of
from support.hand_case import SUMS, log1pexp, losses_of, two_pairs

from unidpo_mm.losses import aot, apo, discopop, dpo, exo, f_dpo, nca, sppo

CHOSEN, REJECTED = [-1.0, 2.0], [0.0, -1.0]
"""Log-ratios of the two pairs, which are their rewards for beta 1."""


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_exo_is_the_reverse_divergence_from_the_smoothed_label() -> None:
    """Sum over both responses of q log(q / p), with p = 0.9, 0.1."""
    config = exo.EXOLossConfig(beta=1.0, label_smoothing=0.1)
    expected = [
        sum(q * math.log(q / p) for q, p in ((sigmoid(margin), 0.9), (sigmoid(-margin), 0.1)))
        for margin in SUMS
    ]
    assert losses_of(exo.LOSS, config) == pytest.approx(expected, rel=1e-12)


def test_exo_is_zero_where_the_model_agrees_with_the_label() -> None:
    agrees = math.log(0.9 / 0.1)
    pairs = pairs_of([agrees], [0.0], [0.0], [0.0], [1.0], [0.0])
    config = exo.EXOLossConfig(beta=1.0, label_smoothing=0.1)
    assert losses_of(exo.LOSS, config, pairs=pairs) == pytest.approx([0.0], abs=1e-12)


def test_nca_by_hand() -> None:
    config = nca.NCALossConfig(beta=1.0)
    expected = [
        log1pexp(-chosen) + (log1pexp(chosen) + log1pexp(rejected)) / 2
        for chosen, rejected in zip(CHOSEN, REJECTED, strict=True)
    ]
    assert losses_of(nca.LOSS, config) == pytest.approx(expected, rel=1e-12)


def test_apo_by_hand() -> None:
    zero = [1 - sigmoid(-1.0) + sigmoid(0.0), 1 - sigmoid(2.0) + sigmoid(-1.0)]
    assert losses_of(apo.LOSS, apo.APOLossConfig(beta=1.0)) == pytest.approx(zero, rel=1e-12)
    down = [sigmoid(-1.0) + 1 - sigmoid(-1.0), sigmoid(2.0) + 1 - sigmoid(3.0)]
    config = apo.APOLossConfig(beta=1.0, variant="down")
    assert losses_of(apo.LOSS, config) == pytest.approx(down, rel=1e-12)


def test_sppo_pulls_each_log_ratio_to_its_target() -> None:
    """beta 0.25: targets 2 and -2; (-1 - 2)^2 + (0 + 2)^2 and (2 - 2)^2 + (-1 + 2)^2."""
    config = sppo.SPPOLossConfig(beta=0.25)
    assert losses_of(sppo.LOSS, config) == pytest.approx([13.0, 1.0], rel=1e-12)


def test_discopop_mixes_a_logistic_and_an_exponential_loss() -> None:
    config = discopop.DiscoPOPLossConfig(beta=1.0, discopop_tau=2.0)
    shares = [sigmoid(margin / 2) for margin in SUMS]
    expected = [
        (1 - share) * log1pexp(-margin) + share * math.exp(-margin)
        for share, margin in zip(shares, SUMS, strict=True)
    ]
    assert losses_of(discopop.LOSS, config) == pytest.approx(expected, rel=1e-12)


def test_aot_compares_sorted_margins() -> None:
    """Policy margins 4, 0 and reference margins 5, -3: sorted 0 - -3 and 4 - 5."""
    config = aot.AOTLossConfig(beta=1.0)
    assert losses_of(aot.LOSS, config) == pytest.approx([log1pexp(1.0), log1pexp(-3.0)])
    smooth = aot.AOTLossConfig(beta=1.0, label_smoothing=0.25)
    expected = [0.75 * log1pexp(-d) + 0.25 * log1pexp(d) for d in (-1.0, 3.0)]
    assert losses_of(aot.LOSS, smooth) == pytest.approx(expected, rel=1e-12)


def test_unpaired_aot_compares_sorted_rewards() -> None:
    """Chosen -1, 2 and rejected -1, 0: -1 - -1 and 2 - 0."""
    config = aot.AOTLossConfig(beta=1.0, variant="unpaired")
    assert losses_of(aot.LOSS, config) == pytest.approx([log1pexp(0.0), log1pexp(-2.0)])


def test_aot_compares_fillers_with_each_other_only() -> None:
    config = aot.AOTLossConfig(beta=1.0, variant="unpaired")
    columns = [torch.tensor(values, dtype=torch.float64) for values in ([-1.0, 9.0, 2.0],)]
    pairs = pairs_of(
        columns[0], [0.0, -9.0, -1.0], [0.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3,
        weight=[1.0, 0.0, 1.0],
    )  # fmt: skip
    losses = losses_of(aot.LOSS, config, pairs=pairs)
    assert [losses[0], losses[2]] == pytest.approx([log1pexp(0.0), log1pexp(-2.0)])


@pytest.mark.parametrize(
    ("parameters", "slope"),
    [
        ({"divergence": "forward_kl"}, lambda t: 1 - 1 / t),
        ({"divergence": "js"}, lambda t: math.log(2 * t / (t + 1))),
        ({"divergence": "alpha", "alpha": 0.5}, lambda t: (t**-0.5 - 1) / -0.5),
        ({"divergence": "alpha", "alpha": 1.0}, math.log),
        ({"divergence": "reverse_kl"}, math.log),
    ],
    ids=["forward", "js", "alpha", "limit", "reverse"],
)
def test_the_rewards_of_f_dpo_are_the_slope_of_the_divergence(parameters, slope) -> None:
    config = f_dpo.FDPOLossConfig(beta=0.5, **parameters)
    output = f_dpo.LOSS.compute(two_pairs(), config)
    chosen = [0.5 * slope(math.exp(value)) for value in CHOSEN]
    rejected = [0.5 * slope(math.exp(value)) for value in REJECTED]
    assert output.chosen_rewards is not None
    assert output.chosen_rewards.tolist() == pytest.approx(chosen, rel=1e-12)
    expected = [log1pexp(bad - good) for good, bad in zip(chosen, rejected, strict=True)]
    assert output.per_unit.tolist() == pytest.approx(expected, rel=1e-12)
    if slope is math.log:
        assert output.per_unit.tolist() == losses_of(dpo.LOSS, dpo.DPOLossConfig(beta=0.5))
