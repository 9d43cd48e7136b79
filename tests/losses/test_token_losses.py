"""Losses of single tokens: by hand, and on the tokens of a batch."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from support.hand_case import log1pexp

from unidpo_mm.losses import dpo, ld_dpo, mpo, sampo
from unidpo_mm.losses.base import Loss
from unidpo_mm.records import PairLogps, SequenceLogps
from unidpo_mm.training.ledger_recorder import derivatives


def responses(*tokens: list[float], grad: bool = False) -> SequenceLogps:
    """Return responses with these log-probs of tokens."""
    length = torch.tensor([len(values) for values in tokens], dtype=torch.float64)
    longest = max(map(len, tokens))
    padded = [values + [0.0] * (longest - len(values)) for values in tokens]
    table = torch.tensor(padded, dtype=torch.float64, requires_grad=grad)
    sums = table.detach().sum(1).requires_grad_(grad)  # not a function of the tokens, as in a step
    return SequenceLogps(sums, length, tokens=table)


def two_pairs(*, grad: bool = False) -> PairLogps:
    """Return pairs of 3 and 2, and of 1 and 4 tokens; the reference has -1 for each token."""
    reference = ([-1.0] * 3, [-1.0]), ([-1.0] * 2, [-1.0] * 4)
    return PairLogps(
        policy_chosen=responses([-0.5, -1.5, -4.0], [-0.25], grad=grad),
        policy_rejected=responses([-2.0, -1.0], [-1.5, -2.0, -3.0, -1.0], grad=grad),
        reference_chosen=responses(*reference[0]),
        reference_rejected=responses(*reference[1]),
        score_chosen=torch.zeros(2),
        score_rejected=torch.zeros(2),
        weight=torch.ones(2, dtype=torch.float64),
    )


def test_ld_dpo_gives_less_weight_to_the_tokens_of_the_longer_response_only() -> None:
    """Rewards of tokens: 0.5, -0.5, -3 and -1, 0; 0.75 and -0.5, -1, -2, 0; alpha 0.25."""
    config = ld_dpo.LDDPOLossConfig(beta=2.0, ld_alpha=0.25)
    output = ld_dpo.LOSS.compute(two_pairs(), config)
    chosen = [2 * (0.5 - 0.5 - 0.25 * 3), 2 * 0.75]
    rejected = [2 * -1.0, 2 * (-0.5 + 0.25 * (-1 - 2 + 0))]
    assert output.chosen_rewards is not None
    assert output.rejected_rewards is not None
    assert output.chosen_rewards.tolist() == pytest.approx(chosen)
    assert output.rejected_rewards.tolist() == pytest.approx(rejected)
    expected = [log1pexp(bad - good) for good, bad in zip(chosen, rejected, strict=True)]
    assert output.per_unit.tolist() == pytest.approx(expected, rel=1e-12)


def test_ld_dpo_with_alpha_one_is_dpo() -> None:
    ours = ld_dpo.LOSS.compute(two_pairs(), ld_dpo.LDDPOLossConfig(beta=0.5, ld_alpha=1.0))
    plain = dpo.LOSS.compute(two_pairs(), dpo.DPOLossConfig(beta=0.5))
    torch.testing.assert_close(ours.per_unit, plain.per_unit, rtol=1e-12, atol=1e-12)


def test_sampo_draws_as_many_tokens_as_the_shorter_response_has() -> None:
    """Pair 1: two of three chosen tokens; pair 2: one of four rejected tokens."""
    config = sampo.SamPOLossConfig(beta=1.0)
    chosen, rejected = set(), set()
    for seed in range(60):
        torch.manual_seed(seed)
        output = sampo.LOSS.compute(two_pairs(grad=True), config)
        assert output.chosen_rewards is not None
        assert output.rejected_rewards is not None
        chosen.add(round(output.chosen_rewards[0].item(), 9))
        rejected.add(round(output.rejected_rewards[1].item(), 9))
        assert output.chosen_rewards[1].item() == pytest.approx(0.75)
        assert output.rejected_rewards[0].item() == pytest.approx(-1.0)
    assert chosen == {0.0, -2.5, -3.5}
    assert rejected == {-0.5, -1.0, -2.0, 0.0}


def test_the_draws_of_sampo_are_equally_likely_and_evaluation_uses_their_mean() -> None:
    config = sampo.SamPOLossConfig(beta=1.0)
    torch.manual_seed(0)
    draws = [
        sampo.LOSS.compute(two_pairs(grad=True), config).rejected_rewards[1] for _ in range(2000)
    ]
    mean, error = torch.stack(draws).mean().item(), torch.stack(draws).std().item() / 2000**0.5
    evaluated = sampo.LOSS.compute(two_pairs(), config)
    assert evaluated.rejected_rewards is not None
    expected = (-0.5 - 1.0 - 2.0 + 0.0) / 4
    assert evaluated.rejected_rewards[1].item() == pytest.approx(expected, rel=1e-12)
    assert abs(mean - expected) < 4 * error


def test_a_mixture_with_a_loss_of_tokens_gets_tokens() -> None:
    config = mpo.MPOLossConfig(losses={"ld_dpo": 0.5, "sft": 1.0})
    assert mpo.LOSS.needs_tokens(config)
    assert not mpo.LOSS.needs_tokens(mpo.MPOLossConfig(losses={"dpo": 1.0}))
    output = mpo.LOSS.compute(two_pairs(), config)
    alone = ld_dpo.LOSS.compute(two_pairs(), ld_dpo.LDDPOLossConfig())
    nll = -two_pairs().policy_chosen.mean
    assert output.per_unit.tolist() == pytest.approx((0.5 * alone.per_unit + nll).tolist())


@pytest.mark.parametrize(
    ("loss", "config"),
    [
        (ld_dpo.LOSS, ld_dpo.LDDPOLossConfig(beta=0.7, ld_alpha=0.25)),
        (mpo.LOSS, mpo.MPOLossConfig(losses={"ld_dpo": 0.5, "dpo": 0.3, "sft": 1.0})),
    ],
    ids=["ld_dpo", "mixture"],
)
def test_the_ledger_raises_all_tokens_of_a_response_alike(loss: Loss, config: Any) -> None:
    """Its derivative is that by the log-prob of the response, spread over its tokens."""
    pairs = two_pairs(grad=True)
    per_unit = loss.compute(pairs, config).per_unit
    slopes = derivatives(per_unit, pairs.policy_chosen, pairs.policy_rejected)
    for name, slope in zip(("policy_chosen", "policy_rejected"), slopes, strict=True):
        plain = two_pairs()
        response = getattr(plain, name)
        place = torch.arange(response.tokens.shape[1])
        step = 1e-6 * (place < response.length.unsqueeze(-1)) / response.length.unsqueeze(-1)
        higher, lower = (
            loss.compute(
                dataclasses.replace(
                    plain,
                    **{
                        name: SequenceLogps(
                            response.sum + sign * 1e-6,
                            response.length,
                            tokens=response.tokens + sign * step,
                        )
                    },
                ),
                config,
            ).per_unit
            for sign in (1, -1)
        )
        torch.testing.assert_close(slope, (higher - lower) / 2e-6, rtol=1e-6, atol=1e-9)


def test_selected_responses_keep_their_tokens() -> None:
    both = responses([-1.0, -2.0], [-3.0])
    (chosen,) = both.select(torch.tensor([1])).tokens.tolist()
    assert chosen == [-3.0, 0.0]
    assert math.isclose(both.select(torch.tensor([1])).sum.item(), -3.0)
