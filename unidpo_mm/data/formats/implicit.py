"""A pair whose prompt is the common beginning of both responses, as in TRL, HH-RLHF and Skywork."""

import re
from itertools import takewhile
from typing import Any

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, SCORES, RowReader, parser

__all__ = ["FORMAT"]

REMEDY = (
    "Start both responses with the prompt, or map its column in the source's 'columns', such as "
    "columns: {prompt: question}"
)
SPEAKERS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
"""Beginning of a turn in a transcript -> role of the speaker."""
TURN = re.compile("(" + "|".join(SPEAKERS) + ")")
PROMPTS = frozenset(
    "prompt question query instruction problem input context user conversation "
    "conversations messages".split()
)
"""Columns that would contain a prompt: if there is one, the format does not fit."""


def _read(row: RowReader) -> PreferenceRow:
    chosen, rejected = (_turns(row.get(name)) for name in ("chosen", "rejected"))
    shared = _shared(chosen, rejected)
    if not shared:
        row.note("chosen", "chosen and rejected have no common prompt", REMEDY)
        row.stop()
    row.read_prompt("chosen", shared)
    if isinstance(shared, str):
        chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    better = row.response("chosen", "score_chosen", text=chosen)
    return row.pair(better, row.response("rejected", "score_rejected", text=rejected))


def _turns(value: Any) -> Any:
    """Return a transcript as messages; return other values unchanged."""
    if not (isinstance(value, str) and value.startswith(tuple(SPEAKERS))):
        return value
    _, *pieces = TURN.split(value)
    return [
        {"role": SPEAKERS[speaker], "content": text.strip()}
        for speaker, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _shared(chosen: Any, rejected: Any) -> Any:
    """Return the common beginning: whole turns, or text up to the end of a word."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        shorter = min(len(chosen), len(rejected))
        length = next((n for n in range(shorter) if chosen[n] != rejected[n]), shorter)
        return chosen[: max(chosen.rfind(" ", 0, length), 0)]
    if isinstance(chosen, list | tuple) and isinstance(rejected, list | tuple):
        turns = zip(chosen[:-1], rejected[:-1], strict=False)  # the last one is a response
        return [turn for turn, _ in takewhile(lambda pair: pair[0] == pair[1], turns)]
    return None


FORMAT = Format(
    name="implicit",
    required=frozenset({"chosen", "rejected"}),
    columns=COMMON | SCORES | {"chosen", "rejected"},
    parse=parser(_read),
    matches=lambda record: not PROMPTS & record.keys(),
)
