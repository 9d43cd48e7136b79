"""LLaMA-Factory's sharegpt ranking: conversations and two last turns, chosen and rejected."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, SCORES, RowReader, parser

__all__ = ["FORMAT", "chat_turn"]

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
    "function_call": "assistant",
}
"""Name of a speaker -> role in chat templates."""


def _read(row: RowReader) -> PreferenceRow:
    turns = row.get("conversations")
    if isinstance(turns, list | tuple):
        turns = [*map(chat_turn, turns)]
    row.read_prompt("conversations", turns)
    chosen = row.response("chosen", "score_chosen", text=chat_turn(row.get("chosen")))
    rejected = row.response("rejected", "score_rejected", text=chat_turn(row.get("rejected")))
    return row.pair(chosen, rejected)


def chat_turn(value: Any) -> Any:
    """Return {"from", "value"} as {"role", "content"}; return other values unchanged."""
    if not (isinstance(value, Mapping) and "from" in value):
        return value
    speaker = value["from"]
    return {"role": ROLES.get(str(speaker), speaker), "content": value.get("value")}


FORMAT = Format(
    name="sharegpt",
    required=frozenset({"conversations", "chosen", "rejected"}),
    columns=COMMON | SCORES | {"conversations", "chosen", "rejected"},
    parse=parser(_read),
)
