"""DPO, SimPO and SFT against cases computed by hand."""

import math

import pytest
import torch
from builders import pairs_of, side

from unidpo_mm.losses import dpo, sft, simpo

LN3 = math.log(3)


def two_pairs(lengths: tuple[list[float], list[float]] | None = None):
    """Pairs whose mean log-ratio margins are ln 3 and -ln 3."""
    return pairs_of(
        [-1.0, -2.0],
        [-1.0 - LN3, -1.0],
        [-0.5, -0.5],
        [-0.5, 0.5 - LN3],
        [math.nan] * 2,
        [math.nan] * 2,
        lengths=lengths,
    )


def test_dpo_on_sums_by_hand() -> None:
    """Responses of 2 and 4 tokens: the margins are 2 m_w - 4 m_l with m = policy - reference.

    Pair 1: m_w = -0.5, m_l = -0.5 - ln3;  2(-0.5) - 4(-0.5 - ln3) = 1 + 4 ln3; beta 0.5.
    Pair 2: m_w = -1.5, m_l = -1.5 + ln3;  -3 + 6 - 4 ln3 = 3 - 4 ln3.
    """
    pairs = two_pairs(([2.0, 2.0], [4.0, 4.0]))
    output = dpo.LOSS.compute(pairs, dpo.DPOLossConfig(beta=0.5))
    margins = [0.5 * (1 + 4 * LN3), 0.5 * (3 - 4 * LN3)]
    expected = [math.log(1 + math.exp(-m)) for m in margins]
    assert output.per_pair.tolist() == pytest.approx(expected, rel=1e-12)
    assert output.chosen_rewards.tolist() == pytest.approx([-0.5, -1.5])


def test_dpo_on_means_by_hand() -> None:
    """With beta 1 the margins are ln 3 and -ln 3: losses ln(4/3) and ln 4, whatever the lengths."""
    for lengths in (None, ([2.0, 9.0], [4.0, 1.0])):
        config = dpo.DPOLossConfig(beta=1.0, length_norm=True)
        output = dpo.LOSS.compute(two_pairs(lengths), config)
        assert output.per_pair.tolist() == pytest.approx([math.log(4 / 3), math.log(4)], rel=1e-12)


def test_dpo_label_smoothing_by_hand() -> None:
    """0.9 ln(4/3) + 0.1 ln 4 for the easy pair, swapped for the hard one."""
    config = dpo.DPOLossConfig(beta=1.0, label_smoothing=0.1)
    output = dpo.LOSS.compute(two_pairs(), config)
    easy, hard = math.log(4 / 3), math.log(4)
    assert output.per_pair.tolist() == pytest.approx(
        [0.9 * easy + 0.1 * hard, 0.9 * hard + 0.1 * easy], rel=1e-12
    )


def test_dpo_gradient_by_hand() -> None:
    """d loss / d p_w = -beta sigma(-margin): -1/4 and -3/4."""
    chosen = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    pairs = pairs_of(chosen, [-1 - LN3, -1.0], [-0.5, -0.5], [-0.5, 0.5 - LN3], [0, 0], [0, 0])
    dpo.LOSS.compute(pairs, dpo.DPOLossConfig(beta=1.0)).per_pair.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-0.25, -0.75], rel=1e-12)


def test_dpo_defaults_to_summed_log_probs_and_beta_0_1() -> None:
    assert dpo.DPOLossConfig() == dpo.DPOLossConfig(
        beta=0.1, label_smoothing=0.0, length_norm=False
    )


def test_simpo_by_hand_with_means_a_target_margin_and_no_reference() -> None:
    """beta 1, gamma ln 3: the reward margins ln 3 and -1 become 0 and -1 - ln 3."""
    config = simpo.SimPOLossConfig(beta=1.0, simpo_gamma=LN3)
    output = simpo.LOSS.compute(two_pairs(([2.0, 9.0], [4.0, 1.0])), config)
    expected = [math.log(2), math.log(1 + 3 * math.e)]
    assert output.per_pair.tolist() == pytest.approx(expected, rel=1e-12)
    assert output.chosen_rewards.tolist() == pytest.approx([-1.0, -2.0])
    assert not simpo.LOSS.needs_reference(config)


def test_sft_is_the_mean_or_the_summed_negative_log_likelihood() -> None:
    responses = side([-1.0, -0.5], [3.0, 4.0])
    mean = sft.LOSS.compute(responses, sft.SFTLossConfig())
    total = sft.LOSS.compute(responses, sft.SFTLossConfig(length_norm=False))
    assert mean.per_unit.tolist() == [1.0, 0.5]
    assert total.per_unit.tolist() == [3.0, 2.0]
    assert mean.chosen_rewards is None


def test_sft_counts_responses_and_needs_neither_reference_nor_scores() -> None:
    config = sft.SFTLossConfig()
    assert sft.LOSS.unit == "response"
    assert not sft.LOSS.needs_reference(config)
    assert not sft.LOSS.needs_scores(config)


@pytest.mark.parametrize("loss", [dpo.LOSS, simpo.LOSS])
def test_dpo_and_simpo_need_no_scores(loss) -> None:
    assert not loss.needs_scores(loss.config())
