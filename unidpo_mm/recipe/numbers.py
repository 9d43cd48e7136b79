"""Refuse numbers that no setting can have: NaN, infinity, and integers beyond 64 bits.

YAML can write them (`.nan`, `.inf`), and most libraries that read a setting compare them without an
error. One rule for all sections covers keys that other packages read as well, such as
`model.init_kwargs` and the settings of callbacks.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import Problem
from .yaml_loader import Document, KeyPath

__all__ = ["LARGEST", "refuse_numbers", "unusable_numbers"]

LARGEST = 2**63 - 1
"""Largest integer that tensors and counters can hold."""


def unusable_numbers(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Problem]]:
    """Yield the path of each unusable number inside a value, and what is wrong with it.

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
        yield path, Problem("", text, "Use a finite number, or remove the key for its default")
    elif isinstance(value, int) and abs(value) > LARGEST:
        text = f"found a whole number of {len(str(abs(value)))} digits"
        yield path, Problem("", text, "Use a smaller number, or remove the key for its default")


def refuse_numbers(document: Document) -> set[KeyPath]:
    """Note the unusable numbers of a document as problems; return their paths."""
    paths = set()
    for path, problem in unusable_numbers(document.data):
        where = document.where(path)
        document.problems.append(Problem(where, problem.message, problem.remedy))
        paths.add(path)
    return paths


def written(value: float) -> str:
    """Return a number as YAML writes it."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return str(value)
