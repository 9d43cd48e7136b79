r"""Two profiles on the library math-verify: as it is, and after a cleaning of ours.

The verdict depends on the version of the library and of its parser's runtime, which results hold.
"""

import logging
import re

from math_verify import parse, verify

from ..boxed import boxed

__all__ = ["clean", "plain"]

logging.getLogger("math_verify").setLevel(logging.ERROR)  # time limits are the pool's, not its own

THIN_SPACE = re.compile(r"(?<=\d)(?:\\[,;:!]|[\u00a0\u2009\u202f])(?=\d)")
TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
WORDS = re.compile(r"[A-Za-z]{3,}(?:[ '-][A-Za-z]+)*")
ANNOUNCED = re.compile(r"answer\s*(?:is|:)\s*([^\n.]*)", re.IGNORECASE)


def plain(gold: str, response: str) -> tuple[float, str | None]:
    """Returns 1 where the library finds the gold answer in a response, and what it found there.

    Args:
        gold: The right answer, without a box.
        response: What the model said, whole.
    """
    wanted = parse(rf"\boxed{{{gold}}}", parsing_timeout=None)
    found = parse(response, parsing_timeout=None)
    right = verify(
        wanted, found, timeout_seconds=None
    )  # not symmetric: the gold answer comes first
    return float(right), str(found[-1]) if found else None


def clean(gold: str, response: str) -> tuple[float, str | None]:
    """Returns the same without thin spaces between digits, and words compared as text.

    The library takes a word for a product of symbols, so that anagrams would be equal.
    """
    gold, response = THIN_SPACE.sub("", gold), THIN_SPACE.sub("", response)
    word = _word(gold)
    if word is None:
        return plain(gold, response)
    boxes, announced = boxed(response), ANNOUNCED.findall(response)
    said = _bare((boxes or announced or [response])[-1])
    return float(said == word), said or None


def _word(text: str) -> str | None:
    bare = TEXT.sub(r"\1", text).strip(" .$")
    return _bare(text) if WORDS.fullmatch(bare) else None


def _bare(text: str) -> str:
    return " ".join(TEXT.sub(r"\1", text).strip(" .$*\n").lower().split())
