"""UltraFeedback as published: an instruction and four completions with their overall scores."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._completions import completions_of
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context)
    row.prompt("instruction")
    return row.ranked(completions_of(row, "overall_score", lambda value: value))


FORMAT = Format(
    name="ultrafeedback",
    required=frozenset({"instruction", "completions"}),
    known=COMMON | {"instruction", "completions"},
    parse=parse,
    data_sets=("UltraFeedback",),
)
