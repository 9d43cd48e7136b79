"""ms-swift's pairs: messages that end with the chosen response, and a rejected response."""

from ...records import PreferenceRow
from . import Format
from ._dialogues import split_dialogue
from ._reader import COMMON, SCORES, RowReader, parser

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    chosen = split_dialogue(row, "messages", score_name="score_chosen")
    names = [name for name in ("rejected_response", "rejected_messages") if row.get(name)]
    if len(names) > 1:
        row.note(names[1], "there are two rejected responses", "Remove one of the two")
    name = names[0]
    return row.pair(chosen, row.response(name, "score_rejected"))


FORMAT = Format(
    name="swift",
    required=frozenset({"messages"}),
    columns=COMMON | SCORES | {"messages", "rejected_response", "rejected_messages"},
    parse=parser(_read),
    matches=lambda record: bool(record.get("rejected_response") or record.get("rejected_messages")),
)
