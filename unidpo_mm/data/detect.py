"""Finds the format of a record by its columns, or says which ones come near."""

from collections.abc import Mapping
from typing import Any

from ..errors import DataError, Problem
from ..plugins import FORMATS, load, plugin_names
from .formats import Format

__all__ = ["format_named", "format_of", "formats"]

NEAREST = 3
"""Formats that a message names with what they need."""


def formats() -> dict[str, Format]:
    """Return every format by name."""
    return {name: load(FORMATS, name) for name in plugin_names(FORMATS)}


def format_named(name: str, where: str) -> Format:
    """Return the format that a source specifies, by name or as the path of a file.

    Raises:
        DataError: If there is no such format.
    """
    data_format: Format = load(FORMATS, name, where)
    return data_format


def format_of(record: Mapping[str, Any], where: str, named: Format | None = None) -> Format:
    """Return the format that a record is read by: the one named, or the one that it fits.

    Raises:
        DataError: If it lacks columns; names the columns found, the nearest formats, and what to
            do.
    """
    columns = {name for name, value in record.items() if value is not None}
    if named is not None:
        if named.required <= columns:
            return named
        raise DataError(_lacking(columns, named, where))
    fitting = [one for one in formats().values() if one.required <= columns]
    fitting = [one for one in fitting if one.matches(record)]
    if fitting:
        return max(fitting, key=lambda one: (len(one.known & columns), len(one.required)))
    if {"completion", "label"} <= columns:
        problem = "single answers labelled good or bad (the layout of KTO) are not understood yet"
        remedy = "Give pairs: prompt, chosen and rejected"
        raise DataError(Problem(f"{where}, field 'label'", problem, remedy))
    raise DataError(_unknown(columns, where))


def _lacking(columns: set[str], named: Format, where: str) -> Problem:
    missing = sorted(named.required - columns)
    field = f", field '{missing[0]}'" if len(missing) == 1 else ""
    return Problem(
        f"{where}{field}",
        f"{', '.join(missing)} is missing for the format '{named.name}'; "
        f"found {', '.join(sorted(columns)) or 'no column'}",
        "Name the columns in the source's 'columns', or leave 'format' out to have it found",
    )


def _unknown(columns: set[str], where: str) -> Problem:
    known = sorted(formats().values(), key=lambda one: _distance(one, columns))
    nearest = known[:NEAREST]
    missing = sorted(nearest[0].required - columns)
    field = f", field '{missing[0]}'" if len(missing) == 1 else ""
    needs = "; ".join(f"{one.name}: {', '.join(sorted(one.required))}" for one in nearest)
    first = (
        f"{', '.join(missing)} is missing for '{nearest[0].name}'"
        if missing
        else (f"it is no '{nearest[0].name}' either by what stands in them")
    )
    return Problem(
        f"{where}{field}",
        f"the columns {', '.join(sorted(columns)) or '(none)'} fit no format; {first}",
        f"The nearest formats need ({needs}). Say which column is which in the source's 'columns', "
        "such as columns: {prompt: question}, or name the format in 'format' "
        "(unidpo-mm list formats)",
    )


def _distance(one: Format, columns: set[str]) -> tuple[float, int]:
    """Order formats by the share of their columns that is there, then by how many they need."""
    return -len(one.required & columns) / len(one.required), len(one.required)
