"""Which option a response chooses: VLMEvalKit's rule without a judge, in two named versions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Choice", "OptionRule", "chosen_option"]

OptionRule = Literal["mcq-v1", "mcq-v2"]
"""``mcq-v2`` of newer releases also searches for "answer is"."""

REFUSED = "Z"
"""What the kit answers where the model declines; it is no option of any question."""
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
FAILED_CALL = "Failed to obtain answer via API"
SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
LAST_TOKENS = 4
"""A letter counts where its first occurrence is among so many last tokens."""
ANSWER_IS = re.compile(r"(?:correct\s+)?answer\s+is\s*\**\s*([A-D])", re.IGNORECASE)
"""No word boundary follows the letter, as in the kit: "answer is about ..." chooses A."""


@dataclass(frozen=True)
class Choice:
    """What a response chooses.

    Attributes:
        letter: An option of the question; None where there is none.
        refused: The model declined, or answered Z.
    """

    letter: str | None
    refused: bool = False


def chosen_option(
    response: str, options: Mapping[str, str], *, rule: OptionRule = "mcq-v1"
) -> Choice:
    """Returns the option that a response chooses.

    A letter that stands alone comes first, then (``mcq-v2``) what follows "answer is", then the
    text of exactly one option.

    Args:
        response: The response, as the model gave it.
        options: Letter -> text of the question's non-empty options.
        rule: The version of the rule.
    """
    if FAILED_CALL not in response:
        if any(phrase in response for phrase in REFUSALS):
            return Choice(None, refused=True)
        alone = _lone_letter(response, options)
        if alone is not None:
            return alone
        if rule == "mcq-v2":
            named = ANSWER_IS.search(response)
            if named and named[1].upper() in options:
                return Choice(named[1].upper())
    return Choice(_option_by_text(response, options))


def _lone_letter(response: str, options: Mapping[str, str]) -> Choice | None:
    tokens = response.translate(SEPARATORS).split()
    letters = [letter for letter in options if letter in tokens]
    if len(letters) == 1:
        near_the_end = tokens.index(letters[0]) >= len(tokens) - LAST_TOKENS
        return Choice(letters[0]) if near_the_end else None
    return Choice(None, refused=True) if not letters and REFUSED in tokens else None


def _option_by_text(response: str, options: Mapping[str, str]) -> str | None:
    text = response.lower()  # which may be longer than the response
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, option in options.items() if option.lower() in text]
    return found[0] if len(found) == 1 else None
