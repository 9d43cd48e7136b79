"""Yes, no or neither: the rules of the reference toolkits and of the benchmarks' own scripts."""

from typing import Literal

from .reasoning import strip_lmms_tags
from .short_answers import remove_punctuation

YesNo = Literal["Yes", "No"]
"""The answer of a response; `None` for neither or both."""
WORDS: dict[str, YesNo] = {"yes": "Yes", "no": "No"}


def yes_or_no(response: str) -> YesNo | None:
    """Return the only one of yes and no that a response contains as a word: VLMEvalKit's rule.

    Apostrophes, colons, asterisks and full-width characters are not punctuation in this rule, so
    they make a different word.
    """
    words = set(remove_punctuation(response.lower()).split()) & WORDS.keys()
    return WORDS[words.pop()] if len(words) == 1 else None


def exact_yes_no(response: str) -> YesNo | None:
    """Return the answer of a response that is exactly yes or no: lmms-eval's rule for POPE.

    Reasoning is removed first, as in lmms-eval.
    """
    return WORDS.get(strip_lmms_tags(response).lower().strip())


def first_letters_yes_no(response: str) -> YesNo | None:
    """Return the answer in the first letters of a response: lmms-eval's rule for MME.

    Reasoning is removed first, as in lmms-eval.
    """
    text = strip_lmms_tags(response).lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": WORDS["yes"], "n": WORDS["no"]}.get(text)
    return next((answer for word, answer in WORDS.items() if word in text[:4]), None)


def first_sentence_yes_no(response: str) -> YesNo:
    """Return No if the first sentence contains a negation, else Yes: the rule of POPE's script.

    A refusal counts as yes.
    """
    words = response.partition(".")[0].replace(",", "").split(" ")
    return "No" if {"No", "not", "no"} & set(words) else "Yes"
