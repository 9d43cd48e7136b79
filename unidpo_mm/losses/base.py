"""What every loss states about itself, so that the step and the trainer know no loss by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..records import LossOutput

__all__ = ["Loss", "Unit", "Value", "always", "never", "require"]

Unit = Literal["pair", "response"]

Value = float | Tensor
"""A parameter: one number, or a tensor [P] with the value of each pair's source."""


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
    """

    name: str
    config: type[Any]
    unit: Unit
    compute: Callable[[Any, Any], LossOutput]
    terms: tuple[str, ...] = ()
    needs_reference: Callable[[Any], bool]
    needs_scores: Callable[[Any], bool]
    batch_dependent: Callable[[Any], bool]


def always(config: Any) -> bool:
    """Answers yes for every configuration."""
    return True


def never(config: Any) -> bool:
    """Answers no for every configuration."""
    return False


def require(name: str, value: Any, holds: Callable[[Any], Any], rule: str) -> None:
    """Checks a parameter, number or tensor [P].

    Raises:
        ValueError: If `holds(value)` is false anywhere; says the rule and the value found.
    """
    good = bool(torch.as_tensor(holds(torch.as_tensor(value, dtype=torch.float64))).all())
    if not good:
        raise ValueError(f"{name} must be {rule}, found {value}")
