"""The forms that answers are asked for in: what share of responses has it shows a wrong template.

No score depends on them. A model whose chat template is wrong goes on talking, and the first number
that falls is the share of answers in the form that was asked for.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..data.samples import Sample, ScoredSample
from .boxed import boxed

__all__ = ["BOX", "LETTER", "SHORT", "YES_NO", "Form"]

Asked = Sample | ScoredSample

WORDS = 10
"""Of a short answer, at most."""
AROUND = " \t\n.,:;!*()[]{}\"'"


@dataclass(frozen=True)
class Form:
    """The form of an answer.

    Attributes:
        kind: Of the questions that ask for it.
        name: In a sentence.
        has: (sample, response) -> whether the response has it.
    """

    kind: str
    name: str
    has: Callable[[Asked, str], bool]


def _is_yes_or_no(sample: Asked, response: str) -> bool:
    words = response.strip(AROUND).lower().split()
    return bool(words) and words[0].strip(AROUND) in ("yes", "no")


def _is_letter(sample: Asked, response: str) -> bool:
    bare = response.strip(AROUND)
    first = re.match(r"([A-Z])(?:$|[.):,]|\s*\n)", bare)
    return first is not None and first[1] in sample.options


def _is_short(sample: Asked, response: str) -> bool:
    bare = response.strip()
    return bool(bare) and "\n" not in bare and len(bare.split()) <= WORDS


def _is_letter_or_short(sample: Asked, response: str) -> bool:
    return (_is_letter if sample.options else _is_short)(sample, response)


YES_NO = Form("yes_no", "yes or no", _is_yes_or_no)
LETTER = Form("options", "the letter of an option", _is_letter)
SHORT = Form("short", f"a letter, or one line of {WORDS} words at most", _is_letter_or_short)
BOX = Form("math", r"an answer in \boxed{}", lambda sample, response: bool(boxed(response)))
