"""HelpSteer's ratings: one response per row with five ratings, 0 to 4; `helpfulness` is the score.

Rows with the same prompt are joined, and pairs are formed from their responses.
"""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._helpsteer import turns_of
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    row = RowReader(record, context)
    row.read_prompt("prompt", turns_of(record.get("prompt")))
    return row.row([row.response("response", "helpfulness")])


FORMAT = Format(
    name="helpsteer_ratings",
    required=frozenset({"prompt", "response", "helpfulness"}),
    columns=(COMMON - {"weight"}) | {"prompt", "response", "helpfulness"},
    parse=parse,
    single_response=True,
    data_sets=("HelpSteer", "HelpSteer2"),
)
