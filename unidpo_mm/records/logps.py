"""Log-probs of responses and pairs under a model, and the loss computed from them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import DataError, Problem

__all__ = ["LossOutput", "PairLogps", "SequenceLogps"]


@dataclass(frozen=True)
class SequenceLogps:
    """Log-probs of responses.

    Attributes:
        sum: [N] float64, the sum of the log-probs of the tokens of each response.
        length: [N] float64, the number of tokens of each response.
        row_ids: Row ids of the N responses, for messages; empty if there are none.
        tokens: [N, T] float64, the log-prob of each token in order, 0 after the last one; `None`
            unless the loss needs them.
    """

    sum: Tensor
    length: Tensor
    row_ids: tuple[str, ...] = ()
    tokens: Tensor | None = None

    def __post_init__(self) -> None:
        if self.sum.shape != self.length.shape:
            raise ValueError(f"sums {tuple(self.sum.shape)}, lengths {tuple(self.length.shape)}")
        if self.length.device.type != "cpu":
            return  # `Targets` has checked the lengths; a check here would wait for the device
        empty = (self.length <= 0).nonzero().flatten().tolist()
        if empty:
            rows = ", ".join(self.row_ids[n] if n < len(self.row_ids) else str(n) for n in empty)
            problem = Problem(f"row {rows}", "a response has no token", "Remove the row")
            raise DataError(problem)

    @property
    def mean(self) -> Tensor:
        """The log-prob per token of each response, [N]."""
        return self.sum / self.length

    def select(self, index: Tensor) -> "SequenceLogps":
        """Return the responses at `index` [N'] in that order, without their row ids."""
        tokens = None if self.tokens is None else self.tokens[index]
        return SequenceLogps(self.sum[index], self.length[index], tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class PairLogps:
    """Inputs of a pair loss: log-probs under policy and reference, scores and weights of P pairs.

    Attributes:
        policy_chosen, policy_rejected: Log-probs under the policy, [P].
        reference_chosen, reference_rejected: Log-probs under the reference; `None` if the loss
            uses none.
        score_chosen, score_rejected: [P] float64, NaN if missing.
        weight: [P] float64, 0 for fillers, which batch statistics skip.
        chosen_pairs: [P], the number of pairs of the batch with the same chosen response; `None`
            if every pair has its own.
        good: [P] bool, for losses of labeled responses: whether the "chosen" response is good; the
            "rejected" one is then a mismatched response, one to another prompt. `None` for
            preferences.
        policy_view, reference_view: Log-probs of the chosen responses with the other images of
            their rows, arbitrary where `has_view` is false; `None` if no row has other images.
        has_view: [P] bool, whether the row has other images.
    """

    policy_chosen: SequenceLogps
    policy_rejected: SequenceLogps
    reference_chosen: SequenceLogps | None = None
    reference_rejected: SequenceLogps | None = None
    score_chosen: Tensor
    score_rejected: Tensor
    weight: Tensor
    chosen_pairs: Tensor | None = None
    good: Tensor | None = None
    policy_view: SequenceLogps | None = None
    reference_view: SequenceLogps | None = None
    has_view: Tensor | None = None

    def __post_init__(self) -> None:
        policy = (self.policy_chosen, self.policy_rejected)
        reference = (self.reference_chosen, self.reference_rejected)
        devices = {side.sum.device for side in (*policy, *reference) if side is not None}
        if len(devices) > 1:
            raise ValueError(f"the log-probs of a pair are on {sorted(map(str, devices))}")


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """The output of a loss for its units (P pairs, or U responses).

    Attributes:
        per_unit: The loss of each unit before it is multiplied by the weight of its pair.
        pair_loss: The part of `per_unit` that the two responses of a pair have, if there is another
            part; `None` if there is none.
        chosen_rewards, rejected_rewards: Implicit rewards [P], detached; `None` for losses of
            responses.
        terms: Additional results that the loss declares, detached, with the shape of `per_unit`.
        reward_margin: The difference of the rewards [P] with its gradient, by which the ledger
            computes what a pair contributes; `None` if there are no rewards.
    """

    per_unit: Tensor
    chosen_rewards: Tensor | None = None
    rejected_rewards: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    reward_margin: Tensor | None = None
    pair_loss: Tensor | None = None

    @property
    def pair_weight(self) -> Tensor:
        """The product of the terms whose names start with ``w_``, 1 without them; detached."""
        factors = (values for name, values in self.terms.items() if name.startswith("w_"))
        return functools.reduce(torch.mul, factors, torch.ones_like(self.per_unit.detach()))

    @property
    def per_pair(self) -> Tensor:
        """The loss of each pair; another name for `per_unit`."""
        return self.per_unit
