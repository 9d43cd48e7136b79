"""UltraFeedback as published: an instruction and four completions with their overall scores."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._completions import read_completions
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    row = RowReader(record, context)
    row.read_prompt("instruction")
    return row.ranked(read_completions(row, "overall_score", lambda value: value))


FORMAT = Format(
    name="ultrafeedback",
    required=frozenset({"instruction", "completions"}),
    columns=COMMON | {"instruction", "completions"},
    parse=parse,
    data_sets=("UltraFeedback",),
)
