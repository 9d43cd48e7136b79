"""Average normalised Levenshtein similarity of short answers read off documents."""

from collections.abc import Sequence

__all__ = ["anls"]

THRESHOLD = 0.5
"""Less similar answers count nothing; 0.5 itself counts."""


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Returns the similarity to the nearest answer, from 0 to 1.

    The distance is that of both texts stripped, in lower case and with single blanks; it is divided
    by the length of the longer text as it stands, in upper case, which may be longer: 'ß'.
    """
    similarity = 1 - min(_distance(prediction, answer) for answer in answers)
    return similarity if similarity >= THRESHOLD else 0.0


def _distance(prediction: str, answer: str) -> float:
    longest = max(len(prediction.upper()), len(answer.upper()))
    if not longest:
        return 0.0
    said, wanted = _plain(prediction), _plain(answer)
    if abs(len(said) - len(wanted)) > THRESHOLD * longest:
        return 1.0  # at least so many characters differ: it counts nothing, whatever they are
    return levenshtein(said, wanted) / longest


def _plain(text: str) -> str:
    return " ".join(text.strip().lower().split())


def levenshtein(left: str, right: str) -> int:
    """Returns how many characters have to be put in, taken out or replaced."""
    if len(left) < len(right):
        left, right = right, left
    previous = list(range(len(right) + 1))
    for row, one in enumerate(left, start=1):
        current = [row]
        for column, other in enumerate(right, start=1):
            replaced = previous[column - 1] + (one != other)
            current.append(min(previous[column] + 1, current[-1] + 1, replaced))
        previous = current
    return previous[-1]
