"""HelpSteer3's preferences: a conversation, two answers and an overall preference, -3 to 3.

The better answer's score is the strength and the other's 0; `scores: {scale: [0, 3]}` declares it.
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
    """Return the row of a record; raises DataError with all its problems."""
    if record.get("domain") not in DOMAINS:  # its own domains: general, stem, code, multilingual
        record = {**record, "domain": None}
    row = RowReader(record, context)
    row.prompt("context")
    return pair_by_strength(row, "response1", "response2", "overall_preference")


FORMAT = Format(
    name="helpsteer3",
    required=COLUMNS,
    known=COMMON | COLUMNS,
    parse=parse,
    data_sets=("HelpSteer3",),
)
