"""Losses: from a framework's name and parameters to those of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..plugins import suggestion
from .conversion import Conversion
from .table import load_file

__all__ = [
    "LossRule",
    "Parameters",
    "load_losses",
    "loss_rule",
    "note_unused",
    "parameters_of",
    "set_loss",
]

Parameters = dict[str, tuple[Any, str]]
"""Parameter of a loss -> its value, and the framework's key that it comes from."""


@dataclass(frozen=True)
class LossRule:
    """The counterpart of one loss of a framework.

    Attributes:
        name: Its name in recipes.
        keys: The framework's keys with its parameters, whose names are those of their targets.
        fixed: Parameter -> value that the framework's loss always has.
    """

    name: str
    keys: Sequence[str]
    fixed: Mapping[str, Any] = field(default_factory=dict)


def load_losses(table: str, section: str = "losses") -> dict[str, LossRule]:
    """Return name in a framework -> rule, from a section of its table."""
    return {name: LossRule(**rule) for name, rule in load_file(table)[section].items()}


def loss_rule(
    conversion: Conversion,
    key: str,
    name: str,
    rules: Mapping[str, LossRule],
) -> LossRule | None:
    """Return the rule of a loss; None, and a problem with `key`, if there is none."""
    if name not in rules:
        text = f"there is no loss '{name}'{suggestion(name, rules)}"
        conversion.problem(key, text, f"Use one of {', '.join(rules)}")
    return rules.get(name)


def parameters_of(conversion: Conversion, rule: LossRule, name_key: str) -> Parameters:
    """Return the parameters of a loss; those in `rule.fixed` follow from its name, `name_key`."""
    parameters = {
        conversion.keys[key].target.removeprefix("loss."): (conversion.value(key), key)
        for key in rule.keys
    }
    return {**parameters, **{name: (value, name_key) for name, value in rule.fixed.items()}}


def set_loss(
    conversion: Conversion,
    parts: Sequence[tuple[str, Parameters]],
    *keys: str,
    weights: Sequence[float] | None = None,
) -> None:
    """Set the loss, or a weighted sum of losses.

    Args:
        conversion: The conversion.
        parts: Name and parameters of each loss.
        *keys: The keys that state names and weights.
        weights: Weight of each loss; None for a single loss.
    """
    if weights is None:
        ((name, parameters),) = parts
        conversion.set("loss.name", name, *keys)
        for parameter, (value, key) in parameters.items():
            conversion.set(f"loss.{parameter}", value, key)
        return
    keys = (*keys, *(key for _, parameters in parts for _, key in parameters.values()))
    losses = {name: float(weight) for (name, _), weight in zip(parts, weights, strict=True)}
    values = {
        name: {parameter: value for parameter, (value, _) in parameters.items()}
        for name, parameters in parts
        if parameters
    }
    conversion.set("loss.name", "mpo", *keys)
    conversion.set("loss.losses", losses, *keys)
    conversion.set("loss.parameters", values, *keys)


def note_unused(conversion: Conversion, name: str, keys: set[str]) -> None:
    """Add a note on every key of a loss parameter that is set and that the loss `name` ignores."""
    for key in conversion.keys_of("loss"):
        if key not in keys:
            conversion.skip(key, f"has no effect on the loss '{name}'")
