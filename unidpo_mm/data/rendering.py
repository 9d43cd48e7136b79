"""What a row says about its own rendering: variables of the chat template, and its reasoning."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ..adapter import template_kwargs_problems
from ..errors import DataError, Problem
from ..records import PreferenceRow, Reasoning
from .formats._messages import is_empty, json_of

__all__ = ["TEMPLATE_COLUMN", "template_kwargs_of", "with_reasoning"]

TEMPLATE_COLUMN = "chat_template_kwargs"
"""The column that holds the variables of the chat template for one row, as in TRL."""


def template_kwargs_of(record: Mapping[str, Any], where: str) -> str:
    """Return the template variables of a record as a JSON object; empty for none.

    Args:
        record: The record; the variables are an object or its JSON text.
        where: File and row, for messages.

    Raises:
        DataError: If they are something else.
    """
    value: Any = record.get(TEMPLATE_COLUMN)
    place = f"{where}, field '{TEMPLATE_COLUMN}'"
    if is_empty(value):
        return ""
    if isinstance(value, str):
        try:
            value = json_of(value)
        except ValueError as error:
            remedy = "Write an object of names and values, or its JSON text"
            raise DataError(Problem(place, f"it is not valid JSON ({error})", remedy)) from error
    if problems := template_kwargs_problems(value, place):
        raise DataError(problems)
    try:
        # Arrow fills in null for the names that other rows have
        written = {name: entry for name, entry in value.items() if entry is not None}
        return json.dumps(written, ensure_ascii=False, sort_keys=True) if written else ""
    except TypeError as error:
        raise DataError(Problem(place, str(error), "Use strings, numbers and booleans")) from error


def with_reasoning(row: PreferenceRow, reasoning: Reasoning | None) -> tuple[PreferenceRow, int]:
    """Return a row with what its source says about reasoning, and how many responses it changed.

    Args:
        row: The row; what it says itself is kept.
        reasoning: The setting of its source.

    Raises:
        DataError: If nothing is left of a response without its reasoning, or two responses of a
            pair become equal.
    """
    if reasoning is None or row.reasoning is not None:
        return row, 0
    if reasoning == "keep":
        return dataclasses.replace(row, reasoning="keep"), 0
    stripped = row.without_reasoning()
    pairs = zip(row.responses, stripped.responses, strict=True)
    return stripped, sum(before.text != after.text for before, after in pairs)
