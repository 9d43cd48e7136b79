"""Refuse numbers that no option can have: NaN, infinity, and integers of more than 64 bits.

YAML has notations for them (`.nan`, `.inf`), and most code that reads an option compares them
without an error. One rule for all sections also covers options that other packages read, such as
`model.init_kwargs` and the settings of callbacks.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import Problem
from .yaml_loader import KeyPath

__all__ = ["LARGEST", "leaves", "unusable_numbers", "written"]

LARGEST = 2**63 - 1
"""The largest integer that tensors and counters can hold."""


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield path and value of everything in nested mappings and lists."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, item in items:
        yield from leaves(item, (*path, key))


def unusable_numbers(values: Any) -> Iterator[tuple[KeyPath, Problem]]:
    """Yield path and problem of each unusable number in nested values.

    The `where` of the problems is empty.
    """
    for path, value in leaves(values):
        if isinstance(value, float) and not math.isfinite(value):
            text = f"found {written(value)}, which is not a finite number"
            remedy = "Use a finite number, or remove the key to use its default"
            yield path, Problem("", text, remedy)
        elif isinstance(value, int) and abs(value) > LARGEST:
            text = f"found a whole number with {len(str(abs(value)))} digits"
            remedy = "Use a smaller number, or remove the key to use its default"
            yield path, Problem("", text, remedy)


def written(value: float) -> str:
    """Return a number as YAML writes it."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return str(value)
