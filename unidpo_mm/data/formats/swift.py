"""ms-swift's pairs: messages that end with the chosen response, and a rejected response."""

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, SCORES, RowReader, parser
from ._values import describe

__all__ = ["FORMAT"]

REMEDY = "Use the turns of the prompt, followed by the chosen response of the assistant"


def _read(row: RowReader) -> PreferenceRow:
    turns = row.get("messages")
    if not isinstance(turns, list | tuple) or len(turns) < 2:
        row.note("messages", f"found {describe(turns)}", REMEDY)
        row.stop()
    row.read_prompt("messages", list(turns[:-1]))
    chosen = row.response("messages", "score_chosen", text=[turns[-1]])
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
