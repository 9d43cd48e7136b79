"""Losses that weight pairs or move their targets, against cases computed by hand."""

import math
from typing import Any

import pytest
import torch
from builders import pairs_of
from support.hand_case import MEANS, SUMS, learning_pairs, log1pexp, losses_of, two_pairs

from unidpo_mm.losses import alpha_dpo, da_dpo, dpo, dr_dpo, focal_po, gamma_po, simpo
from unidpo_mm.losses.base import Loss
from unidpo_mm.losses.running import MarginState
from unidpo_mm.records import PairLogps

MARGINS = [2 * 0.5, 2 * -1.0]
"""SimPO's reward margins of the two pairs for beta 2: means -1 and -1.5, -2 and -1."""


def batch(margins: list[float], weight: list[float] | None = None) -> PairLogps:
    """Return pairs with these differences of log-ratios and a gradient; one token each."""
    return pairs_with(torch.tensor(margins, dtype=torch.float64, requires_grad=True), weight)


def pairs_with(chosen: torch.Tensor, weight: list[float] | None = None) -> PairLogps:
    zeros = [0.0] * len(chosen)
    return pairs_of(chosen, zeros, zeros, zeros, zeros, zeros, weight=weight)


def slopes(margins: list[float], loss: Loss, config: Any, *state: Any) -> list[float]:
    """Return the gradient of the sum of the losses by each margin."""
    chosen = torch.tensor(margins, dtype=torch.float64, requires_grad=True)
    loss.compute(pairs_with(chosen), config, *state).per_unit.sum().backward()
    assert chosen.grad is not None
    return chosen.grad.tolist()


# ---- Dr. DPO ----


def test_dr_dpo_is_the_soft_minimum_of_the_dpo_losses() -> None:
    """-b log mean e^(-l / b) with l = L(-1), L(3), b = 0.5; weights e^(-l / b) over their mean."""
    losses = [log1pexp(-m) for m in SUMS]
    powers = [math.exp(-loss / 0.5) for loss in losses]
    expected = -0.5 * math.log(sum(powers) / 2)
    config = dr_dpo.DrDPOLossConfig(beta=1.0, beta_prime=0.5)
    output = dr_dpo.LOSS.compute(two_pairs(), config)
    assert output.per_unit.mean().item() == pytest.approx(expected, rel=1e-12)
    weights = [power / (sum(powers) / 2) for power in powers]
    assert output.terms["w_robust"].tolist() == pytest.approx(weights, rel=1e-12)


def test_the_gradient_of_dr_dpo_is_that_of_the_soft_minimum() -> None:
    margins = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64, requires_grad=True)
    losses = torch.nn.functional.softplus(-0.7 * margins)
    (-0.4 * torch.logsumexp(-losses / 0.4 - math.log(3), 0)).backward()
    assert margins.grad is not None
    config = dr_dpo.DrDPOLossConfig(beta=0.7, beta_prime=0.4)
    actual = slopes([1.0, -2.0, 0.3], dr_dpo.LOSS, config)  # of the sum, thrice the mean
    assert actual == pytest.approx((3 * margins.grad).tolist(), rel=1e-12)


def test_dr_dpo_uses_the_weights_of_pairs_and_no_fillers() -> None:
    """A weight of 2 is like two such pairs, and a filler changes nothing."""
    config = dr_dpo.DrDPOLossConfig(beta=1.0, beta_prime=0.5)
    twice = dr_dpo.LOSS.compute(batch([1.0, 1.0, -2.0]), config).per_unit
    weighted = dr_dpo.LOSS.compute(batch([1.0, -2.0, 9.0], [2.0, 1.0, 0.0]), config).per_unit
    assert weighted[:2].tolist() == pytest.approx(twice[1:].tolist(), rel=1e-12)
    assert dr_dpo.LOSS.compute(batch([1.0], [0.0]), config).per_unit.isfinite().all()


def test_dr_dpo_with_a_large_beta_prime_is_dpo() -> None:
    config = dr_dpo.DrDPOLossConfig(beta=1.0, beta_prime=1e8)
    expected = losses_of(dpo.LOSS, dpo.DPOLossConfig(beta=1.0))
    assert losses_of(dr_dpo.LOSS, config) == pytest.approx(expected, rel=1e-6)


# ---- FocalPO ----


def test_focal_po_by_hand() -> None:
    """sigmoid(m)^0.5 times the DPO loss."""
    config = focal_po.FocalPOLossConfig(beta=1.0, focal_gamma=0.5)
    expected = [math.exp(-0.5 * log1pexp(-m)) * log1pexp(-m) for m in SUMS]
    assert losses_of(focal_po.LOSS, config) == pytest.approx(expected, rel=1e-12)


def test_focal_po_lowers_the_gradient_of_wrongly_ranked_pairs_most() -> None:
    """d loss / d m = -s^g (1 - s) (1 + g log s) with s = sigmoid(m)."""
    config = focal_po.FocalPOLossConfig(beta=1.0, focal_gamma=0.5)
    expected = [
        -(s**0.5) * (1 - s) * (1 + 0.5 * math.log(s))
        for s in (1 / (1 + math.exp(-m)) for m in (-1.0, 3.0))
    ]
    assert slopes([-1.0, 3.0], focal_po.LOSS, config) == pytest.approx(expected, rel=1e-12)


# ---- DA-DPO ----


def test_da_dpo_grows_beta_with_the_distance_of_the_scores() -> None:
    """Distances 2 and 1, whichever score is higher; a range of 4: betas 1.5 and 1.25."""
    config = da_dpo.DADPOLossConfig(beta=1.0, score_range=4.0)
    expected = [log1pexp(-scale * m) for scale, m in zip([1.5, 1.25], SUMS, strict=True)]
    assert losses_of(da_dpo.LOSS, config) == pytest.approx(expected, rel=1e-12)
    assert da_dpo.LOSS.needs_scores(config)


# ---- alpha-DPO ----


def test_alpha_dpo_moves_the_target_by_the_standardized_gap() -> None:
    """Gaps -0.5 and 1.25: mean 0.375, deviation 0.875, so -1 and 1 deviations; targets times
    beta: 2 (0.5 -+ 0.25) = 0.5 and 1.5. The first batch sets mean and deviation."""
    config = alpha_dpo.AlphaDPOLossConfig(beta=2.0, gamma_beta_ratio=0.5, alpha=0.25)
    state = MarginState()
    output = alpha_dpo.LOSS.compute(learning_pairs(), config, state)
    assert (state.mean, state.std) == pytest.approx((sum(MEANS) / 2, 0.875))
    assert output.terms["target_margin"].tolist() == pytest.approx([0.5, 1.5])
    expected = [log1pexp(t - m) for t, m in zip([0.5, 1.5], MARGINS, strict=True)]
    assert output.per_unit.tolist() == pytest.approx(expected, rel=1e-12)


def test_alpha_dpo_without_alpha_is_simpo() -> None:
    config = alpha_dpo.AlphaDPOLossConfig(beta=2.0, gamma_beta_ratio=0.5, alpha=0.0)
    expected = losses_of(simpo.LOSS, simpo.SimPOLossConfig(beta=2.0, simpo_gamma=1.0))
    actual = losses_of(alpha_dpo.LOSS, config, MarginState())
    assert actual == pytest.approx(expected, rel=1e-12)


def test_the_target_of_alpha_dpo_has_no_gradient() -> None:
    """Gaps -1 and 3 as means, targets 2 (0.5 -+ 0.25), margins -2 and 6: -2 sigmoid(t - m)."""
    config = alpha_dpo.AlphaDPOLossConfig(beta=2.0, gamma_beta_ratio=0.5, alpha=0.25)
    expected = [-2 / (1 + math.exp(m - t)) for t, m in zip([0.5, 1.5], [-2.0, 6.0], strict=True)]
    actual = slopes([-1.0, 3.0], alpha_dpo.LOSS, config, MarginState())
    assert actual == pytest.approx(expected, rel=1e-12)


# ---- gamma-PO ----


def targets_by_search(margins: list[float], gamma0: float, tau: float) -> list[float]:
    """Minimize the objective of gamma-PO for two pairs over p = (x, 1 - x) on a fine grid."""

    def objective(x: float) -> float:
        targets = [2 * gamma0 * x, 2 * gamma0 * (1 - x)]
        loss = sum(log1pexp(t - m) for t, m in zip(targets, margins, strict=True)) / 2
        return loss + tau * (x * math.log(2 * x) + (1 - x) * math.log(2 * (1 - x)))

    best = min((number / 200_000 for number in range(1, 200_000)), key=objective)
    return [2 * gamma0 * best, 2 * gamma0 * (1 - best)]


@pytest.mark.parametrize("tau", [0.3, 1.0, 10.0])
def test_the_targets_of_gamma_po_minimize_its_objective(tau: float) -> None:
    config = gamma_po.GammaPOLossConfig(beta=2.0, gamma_beta_ratio=0.5, tau=tau)
    output = gamma_po.LOSS.compute(learning_pairs(), config, gamma_po.MarginQueue())
    expected = targets_by_search(MARGINS, 1.0, tau)
    assert output.terms["target_margin"].tolist() == pytest.approx(expected, abs=1e-4)
    assert expected[0] > 1.0 > expected[1]  # the clear pair has to win by more
    losses = [log1pexp(t - m) for t, m in zip(expected, MARGINS, strict=True)]
    assert output.per_unit.tolist() == pytest.approx(losses, abs=1e-4)


def test_gamma_po_distributes_targets_over_earlier_pairs_too() -> None:
    config = gamma_po.GammaPOLossConfig(beta=2.0, gamma_beta_ratio=0.5, tau=1.0)
    state = gamma_po.MarginQueue([-2.0])
    output = gamma_po.LOSS.compute(batch([0.5]), config, state)
    (target,) = output.terms["target_margin"].tolist()
    assert target == pytest.approx(targets_by_search([1.0, -2.0], 1.0, 1.0)[0], abs=1e-4)
    assert state.margins == [-2.0, 1.0]
    gamma_po.LOSS.compute(two_pairs(), config, state)  # no gradient: the queue stays
    assert len(state.margins) == 2
    state.margins = [0.0] * gamma_po.QUEUE
    gamma_po.LOSS.compute(batch([0.5, 9.0], [1.0, 0.0]), config, state)
    assert state.margins == [0.0] * (gamma_po.QUEUE - 1) + [1.0]  # without the filler


def test_gamma_po_of_dpo_has_targets_around_zero_and_needs_the_reference() -> None:
    config = gamma_po.GammaPOLossConfig(variant="dpo", beta=1.0, gamma_beta_ratio=0.5, tau=1.0)
    output = gamma_po.LOSS.compute(learning_pairs(), config, gamma_po.MarginQueue())
    expected = [target - 0.5 for target in targets_by_search(SUMS, 0.5, 1.0)]
    assert output.terms["target_margin"].tolist() == pytest.approx(expected, abs=1e-4)
    assert gamma_po.LOSS.needs_reference(config)
    assert not gamma_po.LOSS.needs_reference(gamma_po.GammaPOLossConfig())


@pytest.mark.parametrize("loss", [dr_dpo.LOSS, alpha_dpo.LOSS, gamma_po.LOSS])
def test_a_batch_of_fillers_has_a_finite_loss(loss: Loss) -> None:
    state = () if loss.initial_state is None else (loss.initial_state(),)
    output = loss.compute(batch([1.0, 2.0], [0.0, 0.0]), loss.config(), *state)
    assert output.per_unit.isfinite().all()
