"""Detect the format of a record from its columns."""

from collections.abc import Mapping
from typing import Any

from ..errors import DataError, Problem
from ..plugins import FORMATS, load, plugin_names
from .formats import Format

__all__ = ["detect_format", "formats"]

NEAREST = 3
"""Number of formats that a message lists with their columns."""


def formats() -> dict[str, Format]:
    """Return every format by name."""
    return {name: load(FORMATS, name) for name in plugin_names(FORMATS)}


def detect_format(
    record: Mapping[str, Any],
    where: str,
    required: Format | None = None,
    *,
    fallback: Format | None = None,
) -> Format:
    """Return the format of a record: the one that its source requires, or a detected one.

    Args:
        record: The record.
        where: File and row, for messages.
        required: The format that its source requires; `None` to detect it.
        fallback: The format of records that fit no other one.

    Raises:
        DataError: If columns are missing; lists the columns and the nearest formats.
    """
    columns = {name for name, value in record.items() if value is not None}
    if required is not None:
        if required.required <= columns:
            return required
        raise DataError(_problem(columns, where, required))
    fitting = [f for f in formats().values() if f.required <= columns and f.matches(record)]
    if fitting:
        return max(fitting, key=lambda f: (len(f.columns & columns), len(f.required)))
    if fallback is not None and fallback.matches(record):
        return fallback
    raise DataError(_problem(columns, where, None))


def _problem(columns: set[str], where: str, required: Format | None) -> Problem:
    """Return the problem of columns that do not fit the required format, or any format."""
    nearest = sorted(formats().values(), key=lambda f: _distance(f, columns))[:NEAREST]
    closest = required or nearest[0]
    missing = sorted(closest.required - columns)
    field = f", field '{missing[0]}'" if len(missing) == 1 else ""
    names = ", ".join(sorted(columns)) or "(none)"
    if required is not None:
        return Problem(
            f"{where}{field}",
            f"{', '.join(missing)} is missing for the format '{required.name}'; "
            f"the columns are {names}",
            "Map the columns in the source's 'columns', or remove 'format' to detect it",
        )
    first = f"{', '.join(missing)} is missing for" if missing else "their values do not fit"
    needs = "; ".join(f"{f.name}: {', '.join(sorted(f.required))}" for f in nearest)
    return Problem(
        f"{where}{field}",
        f"the columns {names} fit no format; {first} '{closest.name}'",
        f"The nearest formats need ({needs}). Map the columns in the source's 'columns', such as "
        "columns: {prompt: question}, or set 'format' (unidpo-mm list formats)",
    )


def _distance(format_: Format, columns: set[str]) -> tuple[float, int]:
    """Return a key that sorts formats by the share of their columns that exist, then by number."""
    required = format_.required
    return -len(required & columns) / len(required), len(required)
