"""Validate the parameters of a loss, for recipes and Python alike."""

from collections.abc import Mapping
from typing import Any

from ...errors import Problem
from .argument_ranges import loss_range_problems
from .parameters import build_parameters, typed_parameters

__all__ = ["loss_config"]


def loss_config(loss: Any, parameters: Mapping[str, Any], where: str) -> tuple[Any, list[Problem]]:
    """Return the configuration of a loss, or the problems with its parameters.

    Args:
        loss: The `Loss`.
        parameters: Parameter -> value; the others have the defaults of the loss.
        where: Prefix of a parameter in each problem, for example ``loss``.
    """
    typed, problems = typed_parameters(loss.config, parameters, where, f"the loss '{loss.name}'")
    config, refused = build_parameters(loss.config, typed, where)
    places = {problem.where for problem in refused}
    beyond = loss_range_problems(typed, where=where)
    problems += [*refused, *(problem for problem in beyond if problem.where not in places)]
    return (None if problems else config), problems
