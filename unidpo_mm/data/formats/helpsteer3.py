"""HelpSteer3's preferences: a conversation, two responses and an overall preference, -3 to 3.

The score of the better response is the strength, that of the other one is 0. Their scale is
declared with `scores: {scale: [0, 3]}`.
"""

from collections.abc import Mapping
from typing import Any

from ...records import DOMAINS, PreferenceRow
from . import Context, Format
from ._helpsteer import pair_by_strength
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]

COLUMNS = frozenset({"context", "response1", "response2", "overall_preference"})


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    if record.get("domain") not in DOMAINS:  # the data set uses general, stem, code, multilingual
        record = {**record, "domain": None}
    row = RowReader(record, context)
    row.read_prompt("context")
    return pair_by_strength(row, "response1", "response2", "overall_preference")


FORMAT = Format(
    name="helpsteer3",
    required=COLUMNS,
    columns=COMMON | COLUMNS,
    parse=parse,
    data_sets=("HelpSteer3",),
)
