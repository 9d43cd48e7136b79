"""Shared by bridges that read logged samples of lm-eval and lmms-eval: one object a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..reading.lines import records_of
from ..samples import Prediction

__all__ = ["read_samples"]

RESPONSES = ("filtered_resps", "resps")
"""Where a response stands; as it was filtered first."""


def read_samples(path: Path) -> Sequence[Prediction]:
    """Returns the responses of a file of samples; ids are its `doc_id`."""
    problems: list[Problem] = []
    found = []
    for row in records_of([path], problems):
        own = row.text("doc_id")
        name = next((name for name in RESPONSES if name in row.record), RESPONSES[0])
        response = _first(row.record.get(name))
        if response is None:
            row.note(name, "there is no response", "Give a file of logged samples")
        problems += row.problems
        found.append(Prediction(id=own, response=response or "", where=row.where))
    if problems:
        raise DataError(problems)
    return found


def _first(value: Any) -> str | None:
    """Returns the first text of nested lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else None
