r"""Spells an answer in one way: fractions, roots, units, signs and words for numbers.

The order of the steps is that of the graders that the paper's math results come from; each step is
a small rule, so that what is done to an answer can be read off.
"""

import re
from collections.abc import Callable

__all__ = ["spelt"]

REPLACED = (
    (r"\!", ""),
    (r"\ ", ""),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    (r"\neq", r"\ne"),
    (r"\leq", r"\le"),
    (r"\geq", r"\ge"),
    (r"\left", ""),
    (r"\right", ""),
    (r"\{", "{"),
    (r"\}", "}"),
)
"""Pairs, in order: spaces that are none, and what is written in two ways."""
UNITS = """
degrees degree deg mph kmph ft feet foot inches inch in yards yard yd miles mile mi meters meter
metres metre m cm mm km square cubic units unit sq hours hour hrs hr minutes minute mins min
seconds second secs sec days day weeks week months month years year yr dollars dollar cents cent
pounds pound lbs lb ounces ounce oz grams gram g kg kilograms kilogram liters liter litres litre
ml gallons gallon people students ways times points percent apples balls cards coins boxes books
""".split()
UNIT = re.compile(rf"(?<=[\d)}}\s])\s*\b(?:{'|'.join(UNITS)})\b(?:\^\{{?[23]\}}?)?\.?\s*$")
WORDS = dict(
    zip(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
        fifteen sixteen seventeen eighteen nineteen twenty""".split(),
        map(str, range(21)),
        strict=True,
    )
)
NAMES = ("x=", "y=", "z=", r"x\in", r"y\in", r"z\in", r"x\to", r"y\to", r"z\to")
"""What may stand in front of a value."""


def spelt(text: str) -> str:
    """Returns an answer as the grader compares it."""
    text = str(text).strip().replace("\n", "").rstrip(".")
    for step in STEPS:
        text = step(text)
    return text


def _replaced(text: str) -> str:
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text)
    text = text.replace(r"\end{array}", r"\end{pmatrix}").replace("bmatrix", "pmatrix")
    for written, meant in REPLACED:
        text = text.replace(written, meant)
    return text


def _without_units(text: str) -> str:
    bare = re.sub(r"\\text\{.*?\}$", "", text).strip()
    text = bare or text
    for _ in range(2):  # as in "square feet"
        shorter = UNIT.sub("", text).strip()
        text = shorter or text
    return text


def _without_signs(text: str) -> str:
    text = re.sub(r"\^\{?\\circ\}?", "", text)
    for sign in (r"\$", "$", r"\(", r"\)", r"\%", "%"):
        text = text.replace(sign, "")
    return text


def _plain_words(text: str) -> str:
    text = re.sub(r"\\text\{(.*?)\}", r"\1", text)
    text = re.sub(r"\\mbox\{.*?\}", "", text)
    text = text.replace(r"\mathbf", "").replace("'", "").replace('"', "").replace("and", "")
    return WORDS.get(text.strip().lower(), text)


def _without_name(text: str) -> str:
    for name in NAMES:
        text = text.replace(name, "")
    left, equals, right = text.partition("=")
    return right if equals and "=" not in right and len(left.strip()) <= 2 else text


def _whole_decimals(text: str) -> str:
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    text = re.sub(r"(\d+)\.0+([^\d])", r"\1\2", text)
    text = re.sub(r"(\d+)\.0*$", r"\1", text)
    return f"0{text}" if text.startswith(".") else text


def _without_wrapping(text: str) -> str:
    for opening, closing in ("{}", "()", "[]"):
        inside = text[1:-1]
        if text[:1] == opening and text[-1:] == closing and inside.isalnum():
            return inside
    return text


def _infinity_and_i(text: str) -> str:
    text = text.replace("infinity", r"\infty")
    if r"\infty" not in text:
        text = text.replace("inf", r"\infty")
    text = text.replace(r"+\infty", r"\infty")
    return text.replace("j", "i") if "j" in text and "i" not in text else text


def _braced(text: str) -> str:
    r"""Writes \sqrt2 as \sqrt{2}, \frac12 as \frac{1}{2}, and a whole a/b as \frac{a}{b}."""
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac([^{\s\\])([^{\s\\])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac([^{\s\\])\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\{[^{}]*\})([^{\s\\])", r"\1{\2}", text)
    whole = re.fullmatch(r"(-?)(\d+)/(-?\d+)", text)
    return rf"{whole[1]}\frac{{{whole[2]}}}{{{whole[3]}}}" if whole else text


STEPS: tuple[Callable[[str], str], ...] = (
    _replaced,
    _without_units,
    _without_signs,
    _plain_words,
    _without_name,
    _whole_decimals,
    _without_wrapping,
    _infinity_and_i,
    _braced,
)
