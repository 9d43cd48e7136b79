"""What every loss states about itself, so that the step and the trainer know no loss by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..records import LossOutput, PairLogps

__all__ = [
    "Loss",
    "LossConfig",
    "Unit",
    "Value",
    "always",
    "implicit_rewards",
    "never",
    "require",
    "require_fraction",
    "require_positive",
]

Unit = Literal["pair", "response"]

Value = float | Tensor
"""A parameter: one number, or a tensor [P] with the value of each pair's source."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Base of parameters whose values may be tensors [P], which pydantic is to let by."""

    # pydantic reads this name of a standard dataclass, and would take an annotation for a field
    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One loss; each module of this package that holds a loss exports it as `LOSS`.

    Attributes:
        name: Name of the module.
        config: Frozen dataclass with the loss's parameters and its own defaults.
        unit: ``pair`` or ``response``: what the mean of a step runs over.
        compute: (`PairLogps`, config) -> `LossOutput` for pairs; (`SequenceLogps`, config) ->
            `LossOutput` for responses.
        terms: Names of the side results in `LossOutput.terms`, always all of them.
        needs_reference: Whether a configuration uses reference log-probabilities.
        needs_scores: Whether a configuration uses the scores of the answers.
        batch_dependent: Whether the loss of a pair depends on the other pairs of its micro-batch,
            so that accumulation and the number of processes change the result.
        memory: Makes what a loss remembers from batch to batch of one run; it is passed to
            `compute` as its third argument. None for losses that are functions of their batch.
            It is a dataclass of numbers, which checkpoints keep.
    """

    name: str
    config: type[Any]
    unit: Unit
    compute: Callable[..., LossOutput]
    terms: tuple[str, ...] = ()
    needs_reference: Callable[[Any], bool]
    needs_scores: Callable[[Any], bool]
    batch_dependent: Callable[[Any], bool]
    memory: Callable[[], Any] | None = None


def always(config: Any) -> bool:
    """Answer yes for every configuration."""
    return True


def never(config: Any) -> bool:
    """Answer no for every configuration."""
    return False


def require(name: str, value: Any, holds: Callable[[Any], Any], rule: str) -> None:
    """Check a parameter, number or tensor [P].

    Raises:
        ValueError: If `holds(value)` is false anywhere; says the rule and the value found.
    """
    good = bool(torch.as_tensor(holds(torch.as_tensor(value, dtype=torch.float64))).all())
    if not good:
        raise ValueError(f"{name} must be {rule}, found {value}")


def require_positive(name: str, value: Any) -> None:
    """Check a parameter that must be > 0 and finite, number or tensor [P]."""
    require(name, value, lambda tensor: (tensor > 0) & tensor.isfinite(), "> 0 and finite")


def require_fraction(name: str, value: Any, *, below: float = 1.0) -> None:
    """Check a parameter in [0, `below`), number or tensor [P]."""
    require(name, value, lambda tensor: (tensor >= 0) & (tensor < below), f"in [0, {below:g})")


def implicit_rewards(
    pairs: PairLogps, *, beta: Value, length_norm: bool = False
) -> tuple[Tensor, Tensor]:
    """Return beta times the log-ratio of policy and reference, [P] chosen and [P] rejected.

    Args:
        pairs: With reference log-probabilities.
        beta: Reward scale.
        length_norm: Whether log-probabilities are means over tokens.
    """
    assert pairs.reference_chosen is not None  # Loss.needs_reference
    assert pairs.reference_rejected is not None
    which = "mean" if length_norm else "sum"
    chosen = getattr(pairs.policy_chosen, which) - getattr(pairs.reference_chosen, which)
    rejected = getattr(pairs.policy_rejected, which) - getattr(pairs.reference_rejected, which)
    return beta * chosen, beta * rejected
