"""What the VQA metrics of the kits do to punctuation; the yes/no rule uses it, too."""

import re

__all__ = ["without_punctuation"]

MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""Deleted or replaced in this order. Not among them: ' : * % $ & # and all beyond ASCII."""
DIGIT_COMMA = re.compile(r"\d,\d")
LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
UNFOLLOWED_PERIOD = re.compile(r"\.(?!\d)")
PERIODS = 32
"""The kits hand a flag over as the number of replacements, so that later periods stay."""


def without_punctuation(text: str, *, keep_after_digit: bool = True) -> str:
    """Returns a text without the punctuation that the metrics ignore.

    A mark that has a space beside it anywhere in the text is deleted, and so is every mark where a
    comma stands between two digits anywhere; the others become spaces.

    Args:
        text: A prediction or an answer.
        keep_after_digit: A period after a digit stays, as in VLMEvalKit; lmms-eval deletes every
            period that no digit follows.
    """
    delete_all = DIGIT_COMMA.search(text) is not None
    result = text
    for mark in MARKS:
        delete = delete_all or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if delete else " ")
    period = LONE_PERIOD if keep_after_digit else UNFOLLOWED_PERIOD
    return period.sub("", result, count=PERIODS)
