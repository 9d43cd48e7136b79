"""Pairs whose judges said by how much one answer is preferred, and gave no score to either."""

from ...records import PreferenceRow
from ._reader import RowReader

__all__ = ["pair_by_strength"]


def pair_by_strength(row: RowReader, first: str, second: str, strength: str) -> PreferenceRow:
    """Returns the row of two answers and the strength of the preference between them.

    Args:
        row: The row, its prompt read.
        first: Column of one answer.
        second: Column of the other.
        strength: Column of the strength; positive where the second answer is better.

    The better answer's score is the strength, the other's 0: the margin is what the judges gave.
    """
    found = row.number(strength)
    if found is None and strength not in row.unread:
        row.note(strength, "found nothing", "Give the strength of the preference, -3 to 3")
    found = found or 0.0
    better, worse = (second, first) if found > 0 else (first, second)
    chosen = row.response(better, strength, given=abs(found))
    return row.pair(chosen, row.response(worse, strength, given=0.0))
