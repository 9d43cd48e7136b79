"""Validate the parameters of a loss, for recipes and Python alike."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from ...errors import Problem
from ...plugins import suggestion
from .argument_ranges import loss_range_problems
from .types import type_problems, validated

__all__ = ["loss_config"]


def loss_config(loss: Any, parameters: Mapping[str, Any], where: str) -> tuple[Any, list[Problem]]:
    """Return the configuration of a loss, or the problems with its parameters.

    Args:
        loss: The `Loss`.
        parameters: Parameter -> value; the others have the defaults of the loss.
        where: Prefix of a parameter in each problem, for example ``loss``.
    """
    hints = get_type_hints(loss.config)
    names = [field.name for field in dataclasses.fields(loss.config)]
    remedy = f"Choose from {', '.join(names)}" if names else "Remove it; the loss has none"
    problems: list[Problem] = []
    typed = {}
    for name, value in parameters.items():
        if name not in names:
            text = f"the loss '{loss.name}' has no parameter '{name}'{suggestion(name, names)}"
            problems.append(Problem(f"{where}.{name}", text, remedy))
        elif wrong := type_problems(f"{where}.{name}", value, hints[name]):
            problems += wrong
        else:
            typed[name] = validated(value, hints[name])
    config, refused = _construct(where, loss.config, typed)
    places = {problem.where for problem in refused}
    beyond = loss_range_problems(typed, where=where)
    problems += [*refused, *(problem for problem in beyond if problem.where not in places)]
    return (None if problems else config), problems


def _construct(where: str, kind: type[Any], typed: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    """Build the config from all parameters; if that fails, from each alone to find the cause."""
    config, reason = _constructed(kind, typed)
    if not reason:
        return config, []
    alone = {name: _constructed(kind, {name: value})[1] for name, value in typed.items()}
    problems = [
        Problem(f"{where}.{name}", text, "Correct the value")
        for name, text in alone.items()
        if text
    ]
    return None, problems or [Problem(where, reason, "Change one of these values")]


def _constructed(kind: type[Any], values: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        return kind(**values), ""
    except (TypeError, ValueError) as error:
        return None, str(error).rstrip(".") or type(error).__name__
