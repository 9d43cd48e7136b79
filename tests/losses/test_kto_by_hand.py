"""KTO, against values computed by hand."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from builders import pairs_of
from support.hand_case import learning_pairs, losses_of, two_pairs

from unidpo_mm.errors import RecipeError
from unidpo_mm.losses.kto import LOSS, KTOLossConfig
from unidpo_mm.records import PairLogps
from unidpo_mm.training.configured_loss import configure_loss

GOOD = torch.tensor([True, False])


def labeled(pairs: PairLogps, good: torch.Tensor = GOOD) -> PairLogps:
    return dataclasses.replace(pairs, good=good)


def losses(**parameters: Any) -> list[float]:
    config = KTOLossConfig(beta=1.0, **parameters)
    return losses_of(LOSS, config, pairs=labeled(two_pairs()))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_without_kl_a_reward_is_compared_with_zero() -> None:
    """Rewards -1 of the good and 2 of the bad response."""
    assert losses(kl="none") == pytest.approx([sigmoid(1.0), sigmoid(2.0)], rel=1e-12)


def test_a_negative_mean_of_mismatched_rewards_counts_as_zero() -> None:
    """Mismatched rewards 0 and -1."""
    assert losses() == losses(kl="none")


def test_rewards_are_compared_with_the_mean_of_mismatched_rewards() -> None:
    """Mismatched rewards 2 and 1, so kl is 1.5."""
    pairs = labeled(
        pairs_of([1.0, 3.0], [2.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    )
    output = LOSS.compute(pairs, KTOLossConfig(beta=1.0))
    expected = [1 - sigmoid(1.0 - 1.5), 1 - sigmoid(1.5 - 3.0)]
    assert output.per_unit.tolist() == pytest.approx(expected, rel=1e-12)
    assert output.terms["kl"].tolist() == [1.5, 1.5]


def test_weights_of_good_and_bad_responses() -> None:
    plain = losses(kl="none")
    weighted = losses(kl="none", desirable_weight=1.33, undesirable_weight=0.5)
    assert weighted == pytest.approx([1.33 * plain[0], 0.5 * plain[1]], rel=1e-12)


def test_length_norm_uses_means_per_token() -> None:
    """Rewards -1/2 and 1."""
    expected = [sigmoid(0.5), sigmoid(1.0)]
    assert losses(kl="none", length_norm=True) == pytest.approx(expected, rel=1e-12)


def test_fillers_do_not_count_in_kl() -> None:
    pairs = pairs_of(
        [1.0, 3.0], [2.0, 900.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], weight=[1.0, 0.0]
    )
    assert LOSS.compute(labeled(pairs), KTOLossConfig(beta=1.0)).terms["kl"].tolist() == [2.0, 2.0]


def test_kl_has_no_gradient_and_labels_set_the_direction() -> None:
    pairs = labeled(learning_pairs())
    mismatched = dataclasses.replace(
        pairs.policy_rejected, sum=pairs.policy_rejected.sum.clone().add(5).requires_grad_()
    )
    pairs = dataclasses.replace(pairs, policy_rejected=mismatched)
    output = LOSS.compute(pairs, KTOLossConfig(beta=1.0))
    assert output.terms["kl"].min() > 0
    inputs = (pairs.policy_chosen.sum, mismatched.sum)
    by_response, by_mismatched = torch.autograd.grad(
        output.per_unit.sum(), inputs, allow_unused=True, materialize_grads=True
    )
    assert by_response[0] < 0 < by_response[1]
    assert not by_mismatched.any()


def test_a_mixture_of_pair_losses_cannot_contain_it() -> None:
    with pytest.raises(RecipeError, match=r"losses\.kto cannot be a part of a mixture"):
        configure_loss("mpo", {"losses": {"dpo": 1.0, "kto": 1.0}})
