"""Validate the parameters of a plugin, which are the fields of a dataclass."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from ...errors import Problem
from ...plugins import suggestion
from .types import type_problems, validated

__all__ = ["build_parameters", "typed_parameters"]


def typed_parameters(
    kind: type[Any], parameters: Mapping[str, Any], where: str, owner: str
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the valid parameters, converted to the types of their fields, and the problems.

    Args:
        kind: The dataclass.
        parameters: Parameter -> value; the others have the defaults of the class.
        where: Prefix of a parameter in each problem, for example ``loss``.
        owner: What has the parameters, for messages, for example ``the loss 'dpo'``.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    noun = " ".join(owner.split()[:2])
    remedy = f"Choose from {', '.join(names)}" if names else f"Remove it; {noun} has none"
    problems: list[Problem] = []
    typed = {}
    for name, value in parameters.items():
        if name not in names:
            text = f"{owner} has no parameter '{name}'{suggestion(name, names)}"
            problems.append(Problem(f"{where}.{name}", text, remedy))
        elif wrong := type_problems(f"{where}.{name}", value, hints[name]):
            problems += wrong
        else:
            typed[name] = validated(value, hints[name])
    return typed, problems


def build_parameters(
    kind: type[Any], typed: Mapping[str, Any], where: str
) -> tuple[Any, list[Problem]]:
    """Build the dataclass from all parameters; if that fails, from each alone to find the cause.

    Parameters without a default have to be set.
    """
    required = [field.name for field in dataclasses.fields(kind) if _is_required(field)]
    if missing := [name for name in required if name not in typed]:
        return None, [Problem(f"{where}.{name}", "it is not set", "Set it") for name in missing]
    config, reason = _constructed(kind, typed)
    if not reason:
        return config, []
    common = {name: typed[name] for name in required}
    if text := _constructed(kind, common)[1] if required else "":
        return None, [Problem(f"{where}.{required[0]}", text, "Correct the value")]
    alone = {name: _constructed(kind, common | {name: typed[name]})[1] for name in typed}
    problems = [
        Problem(f"{where}.{name}", text, "Correct the value")
        for name, text in alone.items()
        if text
    ]
    return None, problems or [Problem(where, reason, "Change one of these values")]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _constructed(kind: type[Any], values: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        return kind(**values), ""
    except (TypeError, ValueError) as error:
        return None, str(error).rstrip(".") or type(error).__name__
