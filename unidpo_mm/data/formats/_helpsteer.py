"""Shared by the HelpSteer family: prompts of several turns, preferences by strength."""

from typing import Any

from ...records import PreferenceRow
from ._reader import RowReader

__all__ = ["pair_by_strength", "turns_of"]

TURN = "<extra_id_1>"
"""What stands between the turns of a prompt with several of them."""


def turns_of(prompt: Any) -> Any:
    """Return a prompt of several turns as messages; any other as it is."""
    if not (isinstance(prompt, str) and TURN in prompt):
        return prompt
    first, *others = prompt.split(TURN)
    turns = [{"role": "user", "content": first.strip()}]
    for number, turn in enumerate(others, start=1):
        speaker, _, text = turn.partition("\n")
        if text.strip() or number < len(others):  # the last one opens the answer
            turns.append({"role": speaker.strip().lower(), "content": text.strip()})
    return turns


def pair_by_strength(row: RowReader, first: str, second: str, strength: str) -> PreferenceRow:
    """Return the row of two answers and the strength of the preference between them.

    Args:
        row: The row, its prompt read.
        first: Column of one answer.
        second: Column of the other.
        strength: Column of the strength; positive where the second answer is better.

    The better answer's score is the strength, the other's 0: the margin is what the judges gave.
    """
    found = row.number(strength)
    if found is None and strength not in row.failed:
        row.note(strength, "found nothing", "Give the strength of the preference, -3 to 3")
    found = found or 0.0
    better, worse = (second, first) if found > 0 else (first, second)
    chosen = row.response(better, strength, given=abs(found))
    return row.pair(chosen, row.response(worse, strength, given=0.0))
