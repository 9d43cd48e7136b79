"""One pair a row whose prompt is what both answers begin with, as TRL and reward data have it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._reader import COMMON, SCORES, RowReader

__all__ = ["FORMAT"]

REMEDY = (
    "Start both answers with the prompt, or name its column in the source's 'columns', such as "
    "columns: {prompt: question}"
)
SPEAKERS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
"""What begins a turn in transcripts written as one string -> whose it is."""
TURN = re.compile("(" + "|".join(SPEAKERS) + ")")
PROMPTS = frozenset(
    "prompt question query instruction problem input context user conversation "
    "conversations messages".split()
)
"""Columns that would hold a prompt: where there is one, none is to be cut out of the answers."""


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context)
    chosen, rejected = (_turns(record.get(name)) for name in ("chosen", "rejected"))
    shared = _shared(chosen, rejected)
    if not shared:
        row.note("chosen", "chosen and rejected have no prompt in common", REMEDY)
        row.stop()
    row.prompt("chosen", shared)
    if isinstance(shared, str):
        chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    better = row.response("chosen", "score_chosen", text=chosen)
    return row.pair(better, row.response("rejected", "score_rejected", text=rejected))


def _turns(value: Any) -> Any:
    """Return a transcript as messages; anything else as it is."""
    if not (isinstance(value, str) and value.startswith(tuple(SPEAKERS))):
        return value
    _, *pieces = TURN.split(value)
    return [
        {"role": SPEAKERS[speaker], "content": text.strip()}
        for speaker, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _shared(chosen: Any, rejected: Any) -> Any:
    """Return what both begin with: turns, or text up to the end of a turn or of a word."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        shorter = min(len(chosen), len(rejected))
        length = next((n for n in range(shorter) if chosen[n] != rejected[n]), shorter)
        return chosen[: max(chosen.rfind(" ", 0, length), 0)]
    if isinstance(chosen, list | tuple) and isinstance(rejected, list | tuple):
        return list(chosen[: _equal_turns(chosen, rejected)])
    return None


def _equal_turns(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many turns are the same; the last turn of either is an answer."""
    limit = min(len(one), len(other)) - 1
    return next((n for n in range(max(limit, 0)) if one[n] != other[n]), max(limit, 0))


FORMAT = Format(
    name="implicit",
    required=frozenset({"chosen", "rejected"}),
    known=COMMON | SCORES | {"chosen", "rejected"},
    parse=parse,
    matches=lambda record: not PROMPTS & record.keys(),
    data_sets=("Skywork-Reward-Preference", "HH-RLHF"),
)
