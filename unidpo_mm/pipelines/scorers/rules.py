"""Rules without a model: length, repetition, required and forbidden text; the share that holds."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from ..scorer import Candidate, Score, Scored, Scorer

__all__ = ["SCORER", "Rules"]


@dataclass(frozen=True)
class Rules(Scorer):
    """The share of the rules that a response keeps, from 0 to 1.

    Attributes:
        min_words, max_words: Limits of the number of words; `None` for no limit.
        max_repetition: Maximum share of four-word sequences that occurred before in the response;
            `None` for no limit.
        matches: Regular expression that has to occur; `None` if there is none.
        lacks: Regular expression that must not occur; `None` if there is none.
        script: Whether letters have to be of one script, such as ``LATIN`` or ``CJK``: nine of ten
            have; `None` for any.
    """

    min_words: int | None = None
    max_words: int | None = None
    max_repetition: float | None = None
    matches: str | None = None
    lacks: str | None = None
    script: str | None = None

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("matches", "lacks"):
            try:
                re.compile(getattr(self, name) or "")
            except re.error as error:
                raise ValueError(f"{name} is not a regular expression: {error}") from error
        if all(value is None for value in asdict(self).values()):
            raise ValueError("there is no rule: set at least one of the parameters")

    def score(self, candidates: Sequence[Candidate]) -> Sequence[Scored]:
        """Return the shares, with the names of broken rules as evidence."""
        return [self._score(candidate.text) for candidate in candidates]

    def _score(self, text: str) -> Score:
        results = dict(self._results(text))
        broken = [name for name, holds in results.items() if not holds]
        return Score(1 - len(broken) / len(results), {"broken": broken} if broken else {})

    def _results(self, text: str) -> Iterator[tuple[str, bool]]:
        words = text.split()
        if self.min_words is not None:
            yield "min_words", len(words) >= self.min_words
        if self.max_words is not None:
            yield "max_words", len(words) <= self.max_words
        if self.max_repetition is not None:
            yield "max_repetition", repetition(words) <= self.max_repetition
        if self.matches is not None:
            yield "matches", re.search(self.matches, text) is not None
        if self.lacks is not None:
            yield "lacks", re.search(self.lacks, text) is None
        if self.script is not None:
            yield "script", script_share(text, self.script) >= MIN_SCRIPT


SCORER = Rules
REPEATED = 4
"""Number of words of a sequence."""
MIN_SCRIPT = 0.9
"""Minimum share of letters of the script."""


def repetition(words: Sequence[str]) -> float:
    """Return the share of sequences of words that occurred before; 0 for short texts."""
    sequences = [tuple(words[n : n + REPEATED]) for n in range(len(words) - REPEATED + 1)]
    if not sequences:
        return 0.0
    return 1 - len(Counter(sequences)) / len(sequences)


def script_share(text: str, script: str) -> float:
    """Return the share of letters whose Unicode name contains the name of a script; 1 without."""
    import unicodedata

    letters = [character for character in text if character.isalpha()]
    if not letters:
        return 1.0
    matching = sum(script.upper() in unicodedata.name(letter, "") for letter in letters)
    return matching / len(letters)
