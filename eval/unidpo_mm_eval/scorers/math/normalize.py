r"""Normalization of a math answer: fractions, roots, units, symbols and number words.

The rules, their order and their quirks are those of the graders behind the paper's math results,
since a quirk changes scores as much as a rule does: units are removed wherever they are delimited
by non-word characters, including the units "a" and "m", so that x+a becomes x+.
"""

import re
from collections.abc import Callable, Sequence

from .number_words import words_to_digits

NOTATIONS = (
    (r"\!", ""),
    (r"\ ", ""),
    (r"\\", "\\"),
    (re.compile(r"\\begin\{array\}\{.*?\}"), r"\\begin{pmatrix}"),
    (r"\end{array}", r"\end{pmatrix}"),
    ("bmatrix", "pmatrix"),
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
"""(text or pattern, replacement), in order."""
SYMBOLS = ((r"^{\circ}", ""), (r"^\circ", ""), (r"\$", ""), ("$", ""), (r"\(", ""), (r"\)", ""))
NAMES_AND_SETS = (
    (re.compile(r"\\text\{(.*?)\}"), r"\1"),
    *((name, "") for name in ("x=", "y=", "z=", r"x\in", r"y\in", r"z\in")),
    *((name, "") for name in (r"x\to", r"y\to", r"z\to")),
    (r"\emptyset", "{}"),
    (r"(-\infty,\infty)", r"\mathbb{R}"),
    (r"\%", ""),
    (r"\%", ""),  # the removal of one may create another
    ("%", ""),
    (" .", " 0."),
    ("{.", "{0."),
    ("infinity", r"\infty"),
)
WORDS = (("and", ""), (r"\mathbf", ""), (re.compile(r"\\mbox{.*?}"), ""))
ZEROS = ((re.compile(r"(\d+)\.0*([^\d])"), r"\1\2"), (re.compile(r"(\d+)\.0*$"), r"\1"))
UNITS = tuple(
    unit.strip("|")
    for unit in """
east;degree;mph;kmph;ft;m sqaure;| m east|;sq m;deg;mile;q .;monkey;prime;ratio;
profit of rs;rd;o;gm;p . m;lb;tile;per;dm;lt;gain;ab;way;west;a .;b .;c .;d .;
e .;f .;g .;h .;t;a;h;no change;men;soldier;pie;bc;excess;st;inches;noon;
percent;by;gal;kmh;c;acre;rise;a . m;th;π r 2;sq;mark;l;toy;coin;sq . m;gallon;
° f;profit;minw;yr;women;feet;am;pm;hr;cu cm;square;v â € ™;are;rupee;rounds;
cubic;cc;mtr;s;ohm;number;kmph;day;hour;minute;min;second;man;woman;sec;cube;mt;
sq inch;mp;∏ cm ³;hectare;more;sec;unit;cu . m;cm 2;rs .;rs;kg;g;month;km;m;cm;
mm;apple;liter;loss;yard;pure;year;increase;decrease;d;less;Surface;litre;pi sq m;
s .;metre;meter;inch
""".replace("\n", "").split(";")
)
"""Units of that grader in its order, since they overlap; a dot matches any character."""
DELIMITED_UNITS = tuple(
    re.compile(rf"(^|\W){unit}($|\W)") for unit in (*UNITS, *(f"{unit}s" for unit in UNITS))
)

Pairs = Sequence[tuple["str | re.Pattern[str]", str]]


def normalize_answer(text: str, *, units: bool = False) -> str:
    """Return an answer as the grader compares it; `units` keeps the units, as for Minerva."""
    text = _replace(text.strip().replace("\n", "").rstrip("."), NOTATIONS)
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    if not units:
        text = _without_units(text)
    text = words_to_digits(_replace(text, SYMBOLS))
    for step in LAST_STEPS:
        text = step(text)
    return text


def _replace(text: str, pairs: Pairs) -> str:
    for pattern, replacement in pairs:
        if isinstance(pattern, str):
            text = text.replace(pattern, replacement)
        else:
            text = pattern.sub(replacement, text)
    return text


def _without_units(text: str) -> str:
    for _ in range(2):  # as in "square feet"
        for unit in DELIMITED_UNITS:
            text = unit.sub(r"\1\2", text) or text
    return text


def _names_and_sets(text: str) -> str:
    text = _replace(text, NAMES_AND_SETS)
    if r"\infty" not in text:
        text = text.replace("inf", r"\infty")
    text = _replace(text, WORDS)
    return text.replace("j", "i") if "i" not in text else text


def _decimals(text: str) -> str:
    text = _replace(text, ZEROS)
    return f"0{text}" if text.startswith(".") else text


def _without_name(text: str) -> str:
    name, _, value = text.partition("=")
    return value if text.count("=") == 1 and len(name) <= 2 else text


def _braced(text: str) -> str:
    r"""Write \sqrt2 as \sqrt{2}, \frac12 as \frac{1}{2}, and a complete a/b as \frac{a}{b}."""
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    return _slash(_fractions(text))


def _fractions(text: str) -> str:
    before, *parts = text.split(r"\frac")
    if any(not part.startswith("{") and len(part) < 2 for part in parts):
        return text
    return before + "".join(rf"\frac{_numerator(part)}" for part in parts)


def _numerator(part: str) -> str:
    if part.startswith("{"):
        return part
    above, below, rest = part[0], part[1], part[2:]
    return f"{{{above}}}{below}{rest}" if below == "{" else f"{{{above}}}{{{below}}}{rest}"


def _slash(text: str) -> str:
    above, slash, below = text.partition("/")
    if not slash or "/" in below or not all(map(_is_integer, (above, below))):
        return text
    return rf"\frac{{{above}}}{{{below}}}"


def _is_integer(text: str) -> bool:
    return "sqrt" in text or re.fullmatch(r"0|-?[1-9]\d*", text) is not None


LAST_STEPS: tuple[Callable[[str], str], ...] = (_names_and_sets, _decimals, _without_name, _braced)
