"""LLaMA-Factory's sharegpt ranking: conversations and two last turns, chosen and rejected."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, SCORES, RowReader, parser

__all__ = ["FORMAT"]

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
        turns = [*map(_turn, turns)]
    row.read_prompt("conversations", turns)
    chosen = row.response("chosen", "score_chosen", text=_turn(row.get("chosen")))
    rejected = row.response("rejected", "score_rejected", text=_turn(row.get("rejected")))
    return row.pair(chosen, rejected)


def _turn(value: Any) -> Any:
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
