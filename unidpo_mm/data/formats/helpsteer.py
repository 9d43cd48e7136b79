"""HelpSteer2's preferences: two responses and the strength of the preference, -3 to 3.

The score of the better response is the strength, that of the other one is 0. Their scale is
declared with `scores: {scale: [0, 3]}`.
"""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._helpsteer import pair_by_strength, turns_of
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]

COLUMNS = frozenset({"prompt", "response_1", "response_2", "preference_strength"})


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    row = RowReader(record, context)
    row.read_prompt("prompt", turns_of(record.get("prompt")))
    return pair_by_strength(row, "response_1", "response_2", "preference_strength")


FORMAT = Format(
    name="helpsteer",
    required=COLUMNS,
    columns=COMMON | COLUMNS,
    parse=parse,
    data_sets=("HelpSteer2 preferences",),
)
