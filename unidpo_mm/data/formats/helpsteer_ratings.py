"""HelpSteer's ratings: one response per row with five ratings, 0 to 4; `helpfulness` is the score.

Rows with the same prompt are joined, and pairs are formed from their responses.
"""

from ...records import PreferenceRow
from . import Format
from ._helpsteer import turns_of
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt("prompt", turns_of(row.get("prompt")))
    return row.row([row.response("response", "helpfulness")])


FORMAT = Format(
    name="helpsteer_ratings",
    required=frozenset({"prompt", "response", "helpfulness"}),
    columns=(COMMON - {"weight"}) | {"prompt", "response", "helpfulness"},
    parse=parser(_read),
    single_response=True,
)
