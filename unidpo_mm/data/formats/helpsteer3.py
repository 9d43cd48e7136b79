"""HelpSteer3's preferences: a conversation, two responses and an overall preference, -3 to 3.

The score of the better response is the strength, that of the other one is 0. Their scale is
declared with `scores: {scale: [0, 3]}`.
"""

from ...records import DOMAINS, PreferenceRow
from . import Format
from ._helpsteer import pair_by_strength
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]

COLUMNS = frozenset({"context", "response1", "response2", "overall_preference"})


def _read(row: RowReader) -> PreferenceRow:
    if row.get("domain") not in DOMAINS:  # the data set uses general, stem, code, multilingual
        row.record = {**row.record, "domain": None}
    row.read_prompt("context")
    return pair_by_strength(row, "response1", "response2", "overall_preference")


FORMAT = Format(
    name="helpsteer3",
    required=COLUMNS,
    columns=COMMON | COLUMNS,
    parse=parser(_read),
)
