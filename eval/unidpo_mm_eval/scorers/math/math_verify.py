r"""Two profiles based on the library math-verify: unmodified, and after additional cleaning.

The outcome depends on the versions of the library and its parser runtime, which results record.
"""

import logging
import re

from math_verify import parse, verify

from ..boxed import find_boxes

logging.getLogger("math_verify").setLevel(logging.ERROR)  # the pool enforces time limits instead

THIN_SPACE = re.compile(r"(?<=\d)(?:\\[,;:!]|[\u00a0\u2009\u202f])(?=\d)")
TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
WORDS = re.compile(r"[A-Za-z]{3,}(?:[ '-][A-Za-z]+)*")
ANNOUNCED = re.compile(r"answer\s*(?:is|:)\s*([^\n.]*)", re.IGNORECASE)


def grade(gold: str, response: str) -> tuple[float, str | None]:
    """Return 1 if the library finds the gold answer in a response, and the answer it extracted."""
    target = parse(rf"\boxed{{{gold}}}", parsing_timeout=None)
    answer = parse(response, parsing_timeout=None)
    correct = verify(target, answer, timeout_seconds=None)  # not symmetric: gold comes first
    return float(correct), str(answer[-1]) if answer else None


def grade_cleaned(gold: str, response: str) -> tuple[float, str | None]:
    """Grade without thin spaces between digits, and compare words as text.

    The library parses a word as a product of symbols, so that anagrams would be equal.
    """
    gold, response = THIN_SPACE.sub("", gold), THIN_SPACE.sub("", response)
    if not WORDS.fullmatch(TEXT.sub(r"\1", gold).strip(" .$")):
        return grade(gold, response)
    boxes, announced = find_boxes(response), ANNOUNCED.findall(response)
    answer = _bare((boxes or announced or [response])[-1])
    return float(answer == _bare(gold)), answer or None


def _bare(text: str) -> str:
    return " ".join(TEXT.sub(r"\1", text).strip(" .$*\n").lower().split())
