"""What the answer of a judge says. An answer that says nothing of the kind is an error."""

import re
from collections.abc import Sequence

from ..models.chat import Failure

__all__ = ["choice", "first_line_numbers", "fractions", "rating"]

NUMBER = r"\d+(?:\.\d+)?"


def rating(text: str, name: str, low: float, high: float, *, whole: bool = False) -> float:
    """Returns the number behind the last ``name:``.

    Args:
        text: What the judge said.
        name: What stands before the number.
        low: The least it may be.
        high: The most.
        whole: It has to be a whole number.

    Raises:
        Failure: If there is none, or it is out of range.
    """
    found = re.findall(rf"\b{re.escape(name)}\W*?:\W*?({NUMBER})", text, re.IGNORECASE)
    value = float(found[-1]) if found else -1.0
    if not low <= value <= high or (whole and not value.is_integer()):
        raise Failure("malformed", f"no '{name}:' from {low:g} to {high:g} in {text[-120:]!r}")
    return value


def first_line_numbers(text: str, count: int, low: float, high: float) -> list[float]:
    """Returns the numbers that the first line holds, and nothing but them.

    Raises:
        Failure: If there are more or fewer, or one is out of range.
    """
    line = text.strip().partition("\n")[0]
    words = re.split(r"[\s,;]+", line.strip())
    if len(words) == count and all(re.fullmatch(NUMBER, word) for word in words):
        numbers = [float(word) for word in words]
        if all(low <= number <= high for number in numbers):
            return numbers
    raise Failure("malformed", f"the first line is not {count} numbers: {line[:120]!r}")


def choice(text: str, known: Sequence[str]) -> str:
    """Returns the last of some verdicts in double brackets, as in ``[[A>>B]]``.

    Raises:
        Failure: If there is none.
    """
    found = [one.strip() for one in re.findall(r"\[\[([^\[\]]+)\]\]", text)]
    verdicts = [one for one in found if one in known]
    if not verdicts:
        raise Failure("malformed", f"none of {', '.join(known)} in {text[-120:]!r}")
    return verdicts[-1]


def fractions(text: str, name: str, wholes: Sequence[float]) -> list[float]:
    """Returns the parts of ``name 1: part/whole``, one for each whole, in order.

    Raises:
        Failure: If one is not there, is more than its whole, or has another whole.
    """
    parts = []
    for number, whole in enumerate(wholes, start=1):
        found = re.findall(
            rf"\b{name}\s*{number}\s*:\s*({NUMBER})\s*/\s*({NUMBER})", text, re.IGNORECASE
        )
        if not found or float(found[-1][1]) != whole or float(found[-1][0]) > whole:
            raise Failure("malformed", f"no '{name} {number}: .../{whole:g}' in {text[-120:]!r}")
        parts.append(float(found[-1][0]))
    return parts
