"""ms-swift's labeled responses: messages that end with the response, and whether it is good."""

from ...records import PreferenceRow
from . import Format
from ._dialogues import split_dialogue
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    response = split_dialogue(row, "messages")
    return row.labeled(response, "label")


FORMAT = Format(
    name="swift_labeled",
    required=frozenset({"messages", "label"}),
    columns=COMMON | {"messages", "label", "score"},
    parse=parser(_read),
    matches=lambda record: not (record.get("rejected_response") or record.get("rejected_messages")),
)
