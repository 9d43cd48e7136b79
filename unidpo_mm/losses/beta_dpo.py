"""Beta-DPO: DPO whose beta follows the reward gap of the batch, on pairs that are not outliers.

Source: arXiv 2407.08639. With M = beta0 * log-ratio margin, pairs are drawn by a
Gaussian around the running mean M0 of the gap, and beta = beta0 * (1 + alpha * (mean M - M0)).
The authors' code has M without beta0, so that its alpha is our alpha times beta0; it draws over all
processes, here each process draws from its own micro-batch, by a mean and spread that all share.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import sum_in_place
from ..records import LossOutput, PairLogps
from .base import Loss, always, implicit_rewards, never, require, require_fraction, require_positive

__all__ = ["LOSS", "BetaDPOLossConfig", "GapState"]

LEAST = 0.01
"""Share of beta0 that beta never falls below: one of 0 would teach nothing, one below unlearn."""


@dataclass(frozen=True, kw_only=True)
class BetaDPOLossConfig:
    """Parameters of beta-DPO; the defaults are the paper's."""

    beta: float = 0.1
    """Reward scale beta0, > 0."""
    alpha: float = 0.6
    """How far beta follows the gap, >= 0; 0 leaves it at beta0."""
    momentum: float = 0.9
    """Share of the running mean and spread that a batch leaves, in [0, 1)."""
    keep: float = 0.8
    """Share of the pairs of a micro-batch that is drawn, in (0, 1]; 1 keeps all."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta)
        require("alpha", self.alpha, lambda value: (value >= 0) & value.isfinite(), ">= 0, finite")
        require_fraction("momentum", self.momentum)
        require("keep", self.keep, lambda value: (value > 0) & (value <= 1), "in (0, 1]")


@dataclass
class GapState:
    """Running mean of the reward gap and of its square, over all processes of a run."""

    mean: float | None = None
    square: float = 1.0

    @property
    def std(self) -> float:
        """The spread of the gap; 1 before anything was seen or where nothing differs."""
        return max(self.square - (self.mean or 0.0) ** 2, 0.0) ** 0.5 or 1.0

    def update(self, gaps: Tensor, momentum: float) -> None:
        """Take in the gaps of a micro-batch; the first one sets mean and spread."""
        sums = torch.stack([gaps.new_tensor(float(len(gaps))), gaps.sum(), gaps.square().sum()])
        sum_in_place(sums)
        count, total, squares = sums.tolist()
        if not count:
            return
        kept = 0.0 if self.mean is None else momentum
        self.mean = kept * (self.mean or 0.0) + (1 - kept) * total / count
        self.square = kept * self.square + (1 - kept) * squares / count


def _drawn(gaps: Tensor, memory: GapState, counted: Tensor, keep: float) -> Tensor:
    """Return [P], 1 / share for the pairs that are drawn and 0 for the others."""
    number = max(round(keep * int(counted.sum())), 1)
    far = (gaps - (memory.mean or 0.0)) / memory.std
    likely = torch.softmax(torch.where(counted, -far.square() / 2, -torch.inf), 0)
    chance = likely.clamp(min=1e-30) * counted  # so that there are always enough to draw from
    chosen = torch.multinomial(chance, number)
    return torch.zeros_like(gaps).index_fill(0, chosen, int(counted.sum()) / number)


def _compute(pairs: PairLogps, config: BetaDPOLossConfig, memory: GapState) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta)
    margin, counted = chosen - rejected, pairs.weight > 0
    gaps, learning = margin.detach(), margin.requires_grad
    drawn = torch.ones_like(gaps)
    if learning:  # an evaluation leaves the memory as it is and looks at every pair
        memory.update(gaps[counted], config.momentum)
        if bool(counted.any()) and config.keep < 1:
            drawn = _drawn(gaps, memory, counted, config.keep)
    used = counted & (drawn > 0)
    gap = gaps[used].mean() if bool(used.any()) else gaps.new_zeros(())
    scale = (1 + config.alpha * (gap - (memory.mean or 0.0))).clamp(min=LEAST)
    return LossOutput(
        per_unit=-drawn * F.logsigmoid(scale * margin),
        chosen_rewards=chosen.detach(),  # in the unit of beta0, which stays the same
        rejected_rewards=rejected.detach(),
        terms={"beta_scale": scale.expand_as(gaps), "drawn": (drawn > 0).to(gaps.dtype)},
    )


LOSS = Loss(
    name="beta_dpo",
    config=BetaDPOLossConfig,
    unit="pair",
    compute=_compute,
    terms=("beta_scale", "drawn"),
    needs_reference=always,
    needs_scores=never,
    batch_dependent=always,
    memory=GapState,
)
