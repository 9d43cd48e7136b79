"""Yes, no, or neither: the rules of the kits and of the benchmarks' own scripts."""

from typing import Literal

from .punctuation import without_punctuation
from .reasoning import without_lmms_tags

__all__ = ["YesNo", "exact_yes_no", "first_letters_yes_no", "first_sentence_yes_no", "yes_or_no"]

YesNo = Literal["Yes", "No"]
"""What a response says; None stands for neither and for both."""

WHOLE: dict[str, YesNo] = {"yes": "Yes", "no": "No"}


def yes_or_no(response: str) -> YesNo | None:
    """Returns the one of the words yes and no that a response holds: VLMEvalKit's rule.

    Only whole words count. An apostrophe, a colon, an asterisk or a full-width sign is no
    punctuation here and makes another word of it.
    """
    words = set(without_punctuation(response.lower()).split())
    if "yes" in words and "no" not in words:
        return "Yes"
    if "no" in words and "yes" not in words:
        return "No"
    return None


def exact_yes_no(response: str) -> YesNo | None:
    """Return the answer of a response that is nothing but yes or no: lmms-eval's rule for POPE.

    Reasoning is removed first, as lmms-eval does it.
    """
    return WHOLE.get(without_lmms_tags(response).lower().strip())


def first_letters_yes_no(response: str) -> YesNo | None:
    """Return the answer in the first letters of a response: lmms-eval's rule for MME.

    Reasoning is removed first, as lmms-eval does it.
    """
    text = without_lmms_tags(response).lower().strip().replace(".", "")
    if text in ("yes", "y"):
        return "Yes"
    if text in ("no", "n"):
        return "No"
    if len(text) == 1:
        return None
    beginning = text[:4]
    if "yes" in beginning:
        return "Yes"
    return "No" if "no" in beginning else None


def first_sentence_yes_no(response: str) -> YesNo:
    """Returns No where the first sentence denies, else Yes: the rule of POPE's own script.

    A refusal counts as yes.
    """
    words = response.partition(".")[0].replace(",", "").split(" ")
    return "No" if {"No", "not", "no"} & set(words) else "Yes"
