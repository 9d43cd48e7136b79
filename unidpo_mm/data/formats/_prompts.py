"""Prompts without responses, in the prompt columns of all formats.

Only `unidpo-mm data make` reads them, see `ReadOptions.incomplete`; so they are no format that is
detected in training data.
"""

from collections.abc import Mapping
from typing import Any

from ...records import NO_RESPONSE, PreferenceRow, Response
from . import Format
from ._reader import COMMON, RowReader, parser
from .alpaca import alpaca_prompt
from .sharegpt import chat_turn

__all__ = ["PROMPTS"]

COLUMNS = ("prompt", "messages", "conversations", "instruction", "question")
"""Columns of a prompt; the first of them that a record has is read."""


def _read(row: RowReader) -> PreferenceRow:
    name = next(name for name in COLUMNS if row.get(name) is not None)
    value = row.get(name)
    if name == "conversations" and isinstance(value, list | tuple):
        value = [*map(chat_turn, value)]
    if name == "instruction":
        value = alpaca_prompt(row)
    row.read_prompt(name, _without_answer(value))
    return row.row((Response(NO_RESPONSE, field="response"),))


def _without_answer(value: Any) -> Any:
    """Return the turns without those of the assistant at the end: a dialogue for fine-tuning."""
    if not isinstance(value, list | tuple):
        return value
    turns = list(value)
    while len(turns) > 1 and _is_answer(turns[-1]):
        turns.pop()
    return turns


def _is_answer(turn: Any) -> bool:
    return isinstance(turn, Mapping) and turn.get("role") == "assistant"


def _has_prompt(record: Mapping[str, Any]) -> bool:
    return any(record.get(name) is not None for name in COLUMNS)


PROMPTS = Format(
    name="prompts",
    required=frozenset(),
    columns=COMMON | {*COLUMNS, "input", "history"},
    parse=parser(_read),
    matches=_has_prompt,
)
