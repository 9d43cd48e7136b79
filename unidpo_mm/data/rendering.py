"""Options of a row for its rendering: variables of the chat template, and its reasoning."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ..adapter import template_kwargs_problems
from ..errors import DataError, Problem
from ..records import PreferenceRow, Reasoning
from .formats._values import is_empty, parse_json

__all__ = ["TEMPLATE_COLUMN", "template_kwargs_of", "with_reasoning"]

TEMPLATE_COLUMN = "chat_template_kwargs"
"""The column of the chat template variables of a row, as in TRL."""


def template_kwargs_of(record: Mapping[str, Any], where: str) -> str:
    """Return the template variables of a record as a JSON object; empty if there are none.

    Raises:
        DataError: If they are invalid.
    """
    value: Any = record.get(TEMPLATE_COLUMN)
    field = f"{where}, field '{TEMPLATE_COLUMN}'"
    if is_empty(value):
        return ""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            remedy = "Write an object of names and values, or its JSON text"
            raise DataError(Problem(field, f"not valid JSON ({error})", remedy)) from error
    if problems := template_kwargs_problems(value, field):
        raise DataError(problems)
    try:
        # Arrow adds null for names that only other rows have
        values = {name: entry for name, entry in value.items() if entry is not None}
        return json.dumps(values, ensure_ascii=False, sort_keys=True) if values else ""
    except TypeError as error:
        raise DataError(Problem(field, str(error), "Use strings, numbers and booleans")) from error


def with_reasoning(row: PreferenceRow, reasoning: Reasoning | None) -> tuple[PreferenceRow, int]:
    """Apply the `reasoning` option of a source; return the row and the number of changed responses.

    Args:
        row: The row; its own option has precedence.
        reasoning: The option of its source.

    Raises:
        DataError: If a response becomes empty, or two responses of a pair become equal.
    """
    if reasoning is None or row.reasoning is not None:
        return row, 0
    if reasoning == "keep":
        return dataclasses.replace(row, reasoning="keep"), 0
    stripped = row.without_reasoning()
    pairs = zip(row.responses, stripped.responses, strict=True)
    return stripped, sum(before.text != after.text for before, after in pairs)
