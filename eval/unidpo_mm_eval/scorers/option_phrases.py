"""lmms-eval's search for an option letter: the best format wins, in it the last occurrence."""

from collections.abc import Iterator, Sequence

from .reasoning import without_lmms_tags

__all__ = ["LETTERS", "phrased_option"]

LETTERS = ("A", "B", "C", "D")
STRIPPED = ",.!?;:'\""
"""Taken off both ends, one mark after the other, in this order."""
SUBJECTS = ("answer is", "option is", "choice is")
ANSWER_PHRASES = (
    *(f"{before}{subject}" for subject in SUBJECTS for before in ("", "the ", "correct ", "best ")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
"""What announces an answer; of each the first occurrence counts."""
START, END, PHRASE, PARENTHESES, PERIOD, COLON, CLOSED, SPACE, ANYWHERE = (
    10, 9, 7, 6, 5, 4, 3, 2, 0,
)  # fmt: skip
"""How much a format is trusted."""
FORMATS = (("({})", PARENTHESES), ("{}.", PERIOD), ("{}:", COLON), ("{})", CLOSED), ("{} ", SPACE))


def phrased_option(response: str, letters: Sequence[str] = LETTERS) -> str | None:
    """Return the letter that a response most likely means, `None` if it holds none.

    Reasoning is removed first, as lmms-eval does it.

    Args:
        response: The response.
        letters: Of the options.
    """
    text = without_lmms_tags(response).strip()
    for mark in STRIPPED:
        text = text.strip(mark)
    text = f" {text} "
    found = list(_candidates(text, letters)) or [
        (ANYWHERE, text.rfind(letter), letter) for letter in letters if letter in text
    ]
    # of equal ones the first counts, as max does it
    return max(found, key=lambda one: one[:2])[2] if found else None


def _candidates(text: str, letters: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yields (trust, position, letter) of every letter in every format."""
    for form, trust in FORMATS:
        for letter in letters:
            position = text.rfind(form.format(letter))
            if position >= 0:
                yield trust, position, letter
    lower = text.lower()
    for phrase in ANSWER_PHRASES:
        start = lower.find(phrase)
        for letter in letters if start >= 0 else ():
            position = text.find(letter, start + len(phrase))
            if position >= 0:
                yield PHRASE, position, letter
    bare = text.strip()
    for letter in letters:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield START, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield END, len(text) - 1, letter
