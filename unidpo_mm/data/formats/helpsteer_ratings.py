"""HelpSteer's ratings: one answer a row with five ratings from 0 to 4; `helpfulness` is the score.

Rows of one prompt are joined, and their answers make pairs.
"""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._helpsteer import turns_of
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context)
    row.prompt("prompt", turns_of(record.get("prompt")))
    return row.row([row.response("response", "helpfulness")])


FORMAT = Format(
    name="helpsteer_ratings",
    required=frozenset({"prompt", "response", "helpfulness"}),
    known=(COMMON - {"weight"}) | {"prompt", "response", "helpfulness"},
    parse=parse,
    one_answer=True,
    data_sets=("HelpSteer", "HelpSteer2"),
)
