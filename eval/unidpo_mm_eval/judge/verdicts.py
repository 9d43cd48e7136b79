"""Reading of a judge's reply: without a verdict it raises `ChatFailure`, and never guesses."""

import re
import unicodedata
from collections.abc import Sequence

from unidpo_mm.inference.endpoint import ChatFailure

from ..protocols import judge_prompt

NUMBER = r"\d+(?:\.\d+)?"
ASCII_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
MARKS = r"[\s*_`#>\"'{}\[\],]*"
"""Whitespace and marks of Markdown and JSON."""
POINTS = {"A>>B": 2, "A>B": 1, "A=B": 0, "B>A": -1, "B>>A": -2}
"""Verdict of a comparison -> points for A."""


def comparison_prompt(question: str, first: str, second: str, *, has_images: bool) -> str:
    """Return the prompt that asks a judge to compare two responses."""
    subject = " about this image" if has_images else ""
    return judge_prompt("comparison").format(
        shown=subject, question=question, first=first, second=second
    )


def rating(text: str, name: str, low: float, high: float, *, integer: bool = False) -> float:
    """Return the number after the last ``name:``."""
    numbers = re.findall(rf"\b{re.escape(name)}\W*?:\W*?({NUMBER})", text, re.IGNORECASE)
    value = float(numbers[-1]) if numbers else -1.0
    if not low <= value <= high or (integer and not value.is_integer()):
        raise ChatFailure("malformed", f"no '{name}:' from {low:g} to {high:g} in {text[-120:]!r}")
    return value


def final_rating(text: str, name: str, low: float, high: float) -> float:
    """Return the number of the only line ``name: number``, stricter than `rating`.

    The line has nothing else but Markdown or JSON marks and the highest number, as in ``8/10``. So
    ranges, other scales and signs are refused, and so are lines with different numbers.
    """
    plain = unicodedata.normalize("NFKC", text)
    label = rf"{MARKS}(?:(?:my|final|overall)\s+)*{re.escape(name)}{MARKS}"
    lines = re.findall(rf"^{label}:(.*)$", plain, re.IGNORECASE | re.MULTILINE)
    total = rf"(?:\s*(?:/|out of|of)\s*{high:g})?"
    matches = [
        re.fullmatch(rf"{MARKS}({ASCII_NUMBER}){total}{MARKS}\.?{MARKS}", line) for line in lines
    ]
    values = {float(match[1]) if match else None for match in matches}
    value = values.pop() if len(values) == 1 else None
    if value is None or not low <= value <= high:
        problem = f"no single line '{name}: N' from {low:g} to {high:g} in {text[-120:]!r}"
        raise ChatFailure("malformed", problem)
    return value


def first_line_numbers(text: str, count: int, low: float, high: float) -> list[float]:
    """Return the numbers of a first line that contains nothing else."""
    line = text.strip().partition("\n")[0]
    words = re.split(r"[\s,;]+", line.strip())
    if len(words) == count and all(re.fullmatch(NUMBER, word) for word in words):
        numbers = [float(word) for word in words]
        if all(low <= number <= high for number in numbers):
            return numbers
    raise ChatFailure("malformed", f"the first line is not {count} numbers: {line[:120]!r}")


def choice(text: str, verdicts: Sequence[str]) -> str:
    """Return the last of some verdicts in double brackets, as in ``[[A>>B]]``."""
    bracketed = [match.strip() for match in re.findall(r"\[\[([^\[\]]+)\]\]", text)]
    matches = [match for match in bracketed if match in verdicts]
    if not matches:
        raise ChatFailure("malformed", f"none of {', '.join(verdicts)} in {text[-120:]!r}")
    return matches[-1]


def fractions(text: str, name: str, totals: Sequence[float]) -> list[float]:
    """Return the numerators of ``name 1: points/total``, one per total, in order."""
    points = []
    for number, total in enumerate(totals, start=1):
        matches = re.findall(
            rf"\b{name}\s*{number}\s*:\s*({NUMBER})\s*/\s*({NUMBER})", text, re.IGNORECASE
        )
        if not matches or float(matches[-1][1]) != total or float(matches[-1][0]) > total:
            where = f"'{name} {number}: .../{total:g}' in {text[-120:]!r}"
            raise ChatFailure("malformed", f"no {where}")
        points.append(float(matches[-1][0]))
    return points
