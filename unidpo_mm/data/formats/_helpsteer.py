"""Shared by the HelpSteer formats: prompts of several turns, preferences with a strength."""

from typing import Any

from ...records import PreferenceRow
from ._reader import RowReader

__all__ = ["pair_by_strength", "turns_of"]

TURN = "<extra_id_1>"
"""Separator of the turns of a prompt."""


def turns_of(prompt: Any) -> Any:
    """Return a prompt of several turns as messages; return other prompts unchanged."""
    if not (isinstance(prompt, str) and TURN in prompt):
        return prompt
    first, *others = prompt.split(TURN)
    turns = [{"role": "user", "content": first.strip()}]
    for number, turn in enumerate(others, start=1):
        speaker, _, text = turn.partition("\n")
        if text.strip() or number < len(others):  # the last turn is the start of the response
            turns.append({"role": speaker.strip().lower(), "content": text.strip()})
    return turns


def pair_by_strength(row: RowReader, first: str, second: str, strength: str) -> PreferenceRow:
    """Return the row of two responses and the strength of the preference between them.

    The score of the better response is the strength and that of the other one is 0, so that the
    margin is the strength that annotators have set.

    Args:
        row: The reader of the row, after its prompt was read.
        first: Column of the first response.
        second: Column of the second response.
        strength: Column of the strength, which is positive if the second response is better.
    """
    value = row.number(strength)
    if value is None and strength not in row.failed:
        row.note(strength, "found nothing", "Add the strength of the preference, -3 to 3")
    value = value or 0.0
    better, worse = (second, first) if value > 0 else (first, second)
    chosen = row.response(better, strength, score=abs(value))
    return row.pair(chosen, row.response(worse, strength, score=0.0))
