"""Refuse numbers that no option can have: NaN, infinity, and integers of more than 64 bits.

YAML has notations for them (`.nan`, `.inf`), and most code that reads an option compares them
without an error. One rule for all sections also covers options that other packages read, such as
`model.init_kwargs` and the settings of callbacks.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import Problem
from .yaml_loader import KeyPath

__all__ = ["LARGEST", "unusable_numbers", "written"]

LARGEST = 2**63 - 1
"""The largest integer that tensors and counters can hold."""


def unusable_numbers(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Problem]]:
    """Yield path and problem of each unusable number in a value.

    The `where` of the problems is empty.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from unusable_numbers(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from unusable_numbers(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        text = f"found {written(value)}, which is not a finite number"
        yield path, Problem("", text, "Use a finite number, or remove the key to use its default")
    elif isinstance(value, int) and abs(value) > LARGEST:
        text = f"found a whole number with {len(str(abs(value)))} digits"
        yield path, Problem("", text, "Use a smaller number, or remove the key to use its default")


def written(value: float) -> str:
    """Return a number as YAML writes it."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return str(value)
