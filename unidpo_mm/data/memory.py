"""Data sets in memory: what is a list of records, and what is not."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import Problem
from .files import ArrowRecord
from .places import unformatted
from .wrong import brief

__all__ = ["arrow_records", "not_records"]


def not_records(records: Any, place: str) -> Problem | None:
    """Return the problem of a value that is not a list of records; None if it is one.

    Args:
        records: What was passed as a data set.
        place: What to call it in messages.
    """
    if isinstance(records, Mapping):
        text = f"it is {type(records).__name__} of {', '.join(map(str, records)) or 'nothing'}"
    elif isinstance(records, str | bytes | Path) or not hasattr(records, "__iter__"):
        text = f"it is {type(records).__name__} ({brief(records)!r})"
    elif hasattr(records, "iterrows"):
        text = "it is a table of pandas"
    else:
        return None
    remedy = "Give a list of records, a Dataset, or one of the splits of a DatasetDict"
    return Problem(place, f"{text}, no list of rows", remedy)


def arrow_records(dataset: Any) -> Iterator[Any]:
    """Yield the records of a `datasets` data set, marked as records of Arrow."""
    for record in unformatted(dataset):
        yield ArrowRecord(record) if isinstance(record, Mapping) else record
