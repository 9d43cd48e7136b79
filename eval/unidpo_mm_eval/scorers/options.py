"""The option that a response chooses: VLMEvalKit's rule without a judge, and lmms-eval's search."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .reasoning import strip_lmms_tags

OptionRule = Literal["mcq-v1", "mcq-v2"]
"""``mcq-v2`` of newer releases also searches for "answer is"."""

REFUSED = "Z"
"""VLMEvalKit's answer if the model refuses; not an option of any question."""
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
FAILED_CALL = "Failed to obtain answer via API"
SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
LAST_TOKENS = 4
"""A letter counts if its first occurrence is among this many last tokens."""
ANSWER_IS = re.compile(r"(?:correct\s+)?answer\s+is\s*\**\s*([A-D])", re.IGNORECASE)
"""Without a word boundary after the letter, as in VLMEvalKit: "answer is about" chooses A."""


@dataclass(frozen=True)
class Choice:
    """The option that a response chooses."""

    letter: str | None  # An option of the question; `None` if there is no choice
    refused: bool = False  # The model refused to answer, or answered Z


def chosen_option(
    response: str, options: Mapping[str, str], *, rule: OptionRule = "mcq-v1"
) -> Choice:
    """Return the option that a response chooses by VLMEvalKit's rule.

    A letter on its own has priority, then (``mcq-v2``) the letter after "answer is", then the text
    of exactly one option.
    """
    if FAILED_CALL not in response:
        if any(phrase in response for phrase in REFUSALS):
            return Choice(None, refused=True)
        alone = _lone_letter(response, options)
        if alone is not None:
            return alone
        if rule == "mcq-v2":
            match = ANSWER_IS.search(response)
            if match and match[1].upper() in options:
                return Choice(match[1].upper())
    return Choice(_option_by_text(response, options))


def _lone_letter(response: str, options: Mapping[str, str]) -> Choice | None:
    tokens = response.translate(SEPARATORS).split()
    letters = [letter for letter in options if letter in tokens]
    if len(letters) == 1:
        near_the_end = tokens.index(letters[0]) >= len(tokens) - LAST_TOKENS
        return Choice(letters[0]) if near_the_end else None
    return Choice(None, refused=True) if not letters and REFUSED in tokens else None


def _option_by_text(response: str, options: Mapping[str, str]) -> str | None:
    text = response.lower()  # may be longer than the response
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    letters = [letter for letter, option in options.items() if option.lower() in text]
    return letters[0] if len(letters) == 1 else None


LETTERS = ("A", "B", "C", "D")
STRIPPED = ",.!?;:'\""
"""Stripped from both ends one after the other, in this order."""
SUBJECTS = ("answer is", "option is", "choice is")
ANSWER_PHRASES = (
    *(f"{before}{subject}" for subject in SUBJECTS for before in ("", "the ", "correct ", "best ")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
"""Phrases that announce an answer; the first occurrence of each counts."""
START, END, PHRASE, PARENTHESES, PERIOD, COLON, CLOSED, SPACE, ANYWHERE = (
    10, 9, 7, 6, 5, 4, 3, 2, 0,
)  # fmt: skip
"""Priority of each format."""
FORMATS = (("({})", PARENTHESES), ("{}.", PERIOD), ("{}:", COLON), ("{})", CLOSED), ("{} ", SPACE))


def phrased_option(response: str, letters: Sequence[str] = LETTERS) -> str | None:
    """Return the letter that lmms-eval finds in a response: best format first, then the last one.

    Reasoning is removed first, as in lmms-eval.
    """
    text = strip_lmms_tags(response).strip()
    for mark in STRIPPED:
        text = text.strip(mark)
    text = f" {text} "
    candidates = list(_candidates(text, letters)) or [
        (ANYWHERE, text.rfind(letter), letter) for letter in letters if letter in text
    ]
    # max() returns the first of equal candidates, as lmms-eval does
    return max(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None


def _candidates(text: str, letters: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (priority, position, letter) for every letter in every format."""
    for form, priority in FORMATS:
        for letter in letters:
            position = text.rfind(form.format(letter))
            if position >= 0:
                yield priority, position, letter
    lower = text.lower()
    for phrase in ANSWER_PHRASES:
        start = lower.find(phrase)
        for letter in letters if start >= 0 else ():
            position = text.find(letter, start + len(phrase))
            if position >= 0:
                yield PHRASE, position, letter
    stripped = text.strip()
    for letter in letters:
        if stripped.startswith(letter) and not stripped[1:2].isalpha():
            yield START, 0, letter
        if stripped.endswith(letter) and not stripped[-2:-1].isalpha():
            yield END, len(text) - 1, letter
