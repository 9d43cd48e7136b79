"""HelpSteer's ratings: one answer a row with five ratings from 0 to 4; `helpfulness` is the score.

Rows of one prompt are joined, and their answers make pairs.
"""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]

TURN = "<extra_id_1>"
"""What stands between the turns of a prompt with several of them."""


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Returns the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context)
    row.prompt("prompt", _turns(record.get("prompt")))
    return row.row([row.response("response", "helpfulness")])


def _turns(prompt: Any) -> Any:
    """Returns a prompt of several turns as messages; any other as it is."""
    if not (isinstance(prompt, str) and TURN in prompt):
        return prompt
    first, *others = prompt.split(TURN)
    turns = [{"role": "user", "content": first.strip()}]
    for turn in others:
        speaker, _, text = turn.partition("\n")
        if text.strip():
            turns.append({"role": speaker.strip().lower(), "content": text.strip()})
    return turns


FORMAT = Format(
    name="helpsteer_ratings",
    required=frozenset({"prompt", "response", "helpfulness"}),
    known=COMMON | {"prompt", "response", "helpfulness"},
    parse=parse,
    one_answer=True,
    data_sets=("HelpSteer", "HelpSteer2"),
)
