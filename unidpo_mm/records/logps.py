"""What a model says: log-probabilities of responses and of pairs, and the loss made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import DataError, Problem

__all__ = ["LossOutput", "PairLogps", "SequenceLogps"]


@dataclass(frozen=True)
class SequenceLogps:
    """Log-probabilities of whole responses.

    Attributes:
        sum: [N] float64, the summed log-probability of each response.
        length: [N] float64, its number of tokens.
        row_ids: Row ids of the N responses, for messages.
    """

    sum: Tensor
    length: Tensor
    row_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sum.shape != self.length.shape:
            raise ValueError(f"sums {tuple(self.sum.shape)}, lengths {tuple(self.length.shape)}")
        empty = (self.length <= 0).nonzero().flatten().tolist()
        if empty:
            rows = ", ".join(self.row_ids[n] if n < len(self.row_ids) else str(n) for n in empty)
            problem = Problem(f"row {rows}", "a response has no token", "Remove the row")
            raise DataError(problem)

    @property
    def mean(self) -> Tensor:
        """[N], the log-probability a token."""
        return self.sum / self.length

    def select(self, index: Tensor) -> "SequenceLogps":
        """Return the responses at `index` [N'] in that order."""
        rows = tuple(self.row_ids[n] for n in index.tolist()) if self.row_ids else ()
        return SequenceLogps(self.sum[index], self.length[index], rows)


@dataclass(frozen=True, kw_only=True)
class PairLogps:
    """What a loss may know of P pairs: both sides under both models, scores and weights.

    Attributes:
        policy_chosen, policy_rejected: Policy log-probabilities, [P].
        reference_chosen, reference_rejected: The same under the reference, or None.
        score_chosen, score_rejected: [P] float64, NaN where there is none.
        weight: [P] float64, 0 for fillers, which batch statistics leave out.
        chosen_pairs: [P], how many pairs of the batch have the same chosen answer; None for one.
    """

    policy_chosen: SequenceLogps
    policy_rejected: SequenceLogps
    reference_chosen: SequenceLogps | None = None
    reference_rejected: SequenceLogps | None = None
    score_chosen: Tensor
    score_rejected: Tensor
    weight: Tensor
    chosen_pairs: Tensor | None = None

    def __post_init__(self) -> None:
        sides = (
            self.policy_chosen,
            self.policy_rejected,
            self.reference_chosen,
            self.reference_rejected,
        )
        devices = {side.sum.device for side in sides if side is not None}
        if len(devices) > 1:
            raise ValueError(f"the log-probabilities of a pair lie on {sorted(map(str, devices))}")


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What a loss returns for its units (P pairs, or U responses).

    Attributes:
        per_unit: The loss of each unit, unweighted by the pair's own weight.
        chosen_rewards, rejected_rewards: Implicit rewards [P], detached; None for response losses.
        terms: Declared side results of the loss, each of the shape of `per_unit`, detached.
    """

    per_unit: Tensor
    chosen_rewards: Tensor | None = None
    rejected_rewards: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def per_pair(self) -> Tensor:
        """`per_unit` under the name that pair losses use."""
        return self.per_unit
