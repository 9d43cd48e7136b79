"""The response formats that prompts ask for; a low share of matches reveals a wrong chat template.

No score depends on them. A model with a wrong chat template does not stop after its answer, and the
share of responses in the expected format drops first.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..data.samples import GradedSample, Sample
from .boxed import find_boxes

AnySample = Sample | GradedSample

MAX_WORDS = 10
"""Maximum number of words of a short answer."""
AROUND = " \t\n.,:;!*()[]{}\"'"


@dataclass(frozen=True)
class ResponseFormat:
    """The format that a prompt asks for."""

    kind: str  # The kind of question, which selects the prompt template
    description: str  # The format in words
    # (sample, response) -> whether the response has the format
    matches: Callable[[AnySample, str], bool]


def _is_yes_or_no(sample: AnySample, response: str) -> bool:
    words = response.strip(AROUND).lower().split()
    return bool(words) and words[0].strip(AROUND) in ("yes", "no")


def _is_letter(sample: AnySample, response: str) -> bool:
    match = re.match(r"([A-Z])(?:$|[.):,]|\s*\n)", response.strip(AROUND))
    return match is not None and match[1] in sample.options


def _is_letter_or_short(sample: AnySample, response: str) -> bool:
    if sample.options:
        return _is_letter(sample, response)
    text = response.strip()
    return bool(text) and "\n" not in text and len(text.split()) <= MAX_WORDS


YES_NO = ResponseFormat("yes_no", "yes or no", _is_yes_or_no)
LETTER = ResponseFormat("options", "the letter of an option", _is_letter)
SHORT = ResponseFormat(
    "short", f"a letter, or one line of at most {MAX_WORDS} words", _is_letter_or_short
)
BOX = ResponseFormat(
    "math", r"an answer in \boxed{}", lambda sample, response: bool(find_boxes(response))
)
