"""HelpSteer2's preferences: two responses and the strength of the preference, -3 to 3.

The score of the better response is the strength, that of the other one is 0. Their scale is
declared with `scores: {scale: [0, 3]}`.
"""

from ...records import PreferenceRow
from . import Format
from ._helpsteer import pair_by_strength, turns_of
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]

COLUMNS = frozenset({"prompt", "response_1", "response_2", "preference_strength"})


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt("prompt", turns_of(row.get("prompt")))
    return pair_by_strength(row, "response_1", "response_2", "preference_strength")


FORMAT = Format(
    name="helpsteer",
    required=COLUMNS,
    columns=COMMON | COLUMNS,
    parse=parser(_read),
)
