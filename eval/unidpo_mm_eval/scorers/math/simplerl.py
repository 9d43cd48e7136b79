r"""The grader of the paper's math results, written anew from its rules.

An answer is looked for in this order: "final answer is $...$. I hope", the last box, "he answer
is", "final answer is", the same in Chinese, the last number. Both sides are then spelt alike, and
are equal as text, as numbers, item by item, as equations, or as expressions. It is more lenient
than math-verify on numbers and intervals, and stricter on unordered lists, mixed numbers and
plus-minus.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from .normalize import spelt

__all__ = ["equal", "extracted", "grade", "grade_with_units"]

NUMBER = re.compile(r"-?\d*\.?\d+")
RELATIVE = 1e-4
"""Of numbers that are not both whole."""
LETTERS = "ABCDE"
LETTER = re.compile(r"\b[A-E]\b")
ANNOUNCED = re.compile("choice is|answer is")
BRACKETED = re.compile(r"[(\[].+[)\]]", re.DOTALL)
MATRIX = "\\begin{pmatrix}", "\\end{pmatrix}"
Number = int | float


def grade(gold: str, response: str) -> tuple[float, str | None]:
    """Returns 1 where the answer found in a response equals the gold answer, and that answer."""
    return _graded(spelt(spelt(gold)), response, units=False)


def grade_with_units(gold: str, response: str) -> tuple[float, str | None]:
    """Returns the same with units left where they are, as for the problems of Minerva."""
    return _graded(spelt(gold, units=True), response, units=True)


def _graded(gold: str, response: str, *, units: bool) -> tuple[float, str | None]:
    said = spelt(spelt(extracted(response), units=units), units=units)  # twice, as it does
    if gold in LETTERS and len(gold) == 1:
        said = said if said and said in LETTERS and len(said) == 1 else _choice(response)
    elif set(gold) <= set(LETTERS) and not set(said) <= set(LETTERS):
        said = "".join(letter for letter in said if letter in LETTERS)
    return float(equal(said, gold)), said or None


def extracted(response: str) -> str:
    """Returns the answer of a response; an empty string where there is none."""
    found = _found(response.replace("ки", ""))
    found = re.sub(r"\n\s*", "", found).removeprefix(":")
    return found.removesuffix(".").removesuffix("/")


def _found(response: str) -> str:
    if "final answer is $" in response and "$. I hope" in response:
        return response.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in response:
        after = response.rpartition("boxed")[2]
        return _in_braces(after) if after.startswith("{") else after.partition("$")[0].strip()
    for mark in ("he answer is", "final answer is"):
        if mark in response:
            return response.rpartition(mark)[2].strip()
    if "答案是" in response:
        return response.split("答案是")[1].strip().partition("\n\n")[0].strip()
    numbers = NUMBER.findall(response.replace(",", ""))
    return numbers[-1] if numbers else ""


def _in_braces(text: str) -> str:
    """Returns what stands between the first brace and its partner, or the end where it has none."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[1:place]
    return text[1:]


def _choice(response: str) -> str:
    """Returns the letter that a response to a question with options chooses."""
    text = response.strip("\n")
    if any(text.count(mark) > 1 for mark in ("choice is", "answer is")):
        text = text.split("\n\n")[0]
    *before, last = ANNOUNCED.split(text)
    return _letter(last, first=bool(before))


def _letter(text: str, *, first: bool = False) -> str:
    """Returns the first or the last letter that stands alone; the text where there is none."""
    text = text.strip("\n").rstrip(".").rstrip("/").strip(" ").lstrip(":")
    letters = LETTER.findall(text.upper())
    chosen = letters[0 if first else -1] if letters else text.strip().strip(".")
    return chosen.rstrip(".").rstrip("/")


def equal(said: str, gold: str) -> bool:
    """Says whether two answers, both spelt alike, are equal by one of the rules."""
    if said.strip().lower() == gold.strip().lower():
        return True
    if gold and gold in LETTERS and len(gold) == 1 and _letter(said) == gold:
        return True
    mine, wanted = _number(said), _number(gold)
    if mine is not None and wanted is not None:
        return any(_near(mine, value) for value in (wanted / 100, wanted, wanted * 100))
    if not said:
        return False
    said, gold = said.strip(), gold.strip()
    if "pmatrix" in said and "pmatrix" not in gold:
        gold = _as_matrix(gold)
    rules = (_without_brackets, _by_items, _by_cells, _by_equation, _as_expressions)
    return any(rule(said, gold) for rule in rules)


def _near(one: Number, other: Number) -> bool:
    """Compares whole numbers exactly, others with a tolerance."""
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return math.isclose(one, other, rel_tol=RELATIVE)


def _number(text: str) -> Number | None:
    plain = text.replace(",", "")
    try:
        value = float(plain)
    except ValueError:
        value = None
    if value is not None:
        return int(value) if value.is_integer() else value
    if not plain.endswith("%"):
        return None
    try:
        return float(plain.removesuffix("%").removesuffix("\\")) / 100
    except ValueError:
        return None


def _as_matrix(text: str) -> str:
    """Returns sets in braces as columns."""
    begin, end = MATRIX
    sets = re.findall(r"\{.*,.*\}", text)
    return ", ".join(begin + one.strip("{}").replace(",", "\\") + end for one in sets)


def _without_brackets(said: str, gold: str) -> bool:
    square = said.startswith("[") and said.endswith("]") and not gold.startswith("(")
    round_ = said.startswith("(") and said.endswith(")") and not gold.startswith("[")
    if square or round_:
        said, gold = said.strip("[]()"), gold.strip("[]()")
    bare = str.maketrans("", "", "{}()")
    return said.translate(bare).lower() == gold.translate(bare).lower()


def _by_items(said: str, gold: str) -> bool:
    """Compares tuples and intervals item by item, in their order, whatever their brackets."""
    if not (BRACKETED.match(said) and BRACKETED.match(gold)):
        return False
    mine, wanted = said[1:-1].split(","), gold[1:-1].split(",")
    return len(mine) == len(wanted) and all(map(equal, mine, wanted))


def _by_cells(said: str, gold: str) -> bool:
    mine, wanted = _cells(said), _cells(gold)
    if mine is None or wanted is None or [*map(len, mine)] != [*map(len, wanted)]:
        return False
    return all(all(map(equal, row, other)) for row, other in zip(mine, wanted, strict=True))


def _cells(text: str) -> list[list[str]] | None:
    begin, end = MATRIX
    if not (text.startswith(begin) and text.endswith(end)):
        return None
    rows = text.removeprefix(begin).removesuffix(end).split(r"\\")
    return [row.strip().split("&") for row in rows if row.strip()]


def _by_equation(said: str, gold: str) -> bool:
    mine, wanted = said.split("="), gold.split("=")
    match len(mine), len(wanted):
        case 2, 2:
            one, other = (f"{left.strip()} - ({right.strip()})" for left, right in (mine, wanted))
            return _as_expressions(one, other) or _as_expressions(f"-({one})", other)
        case 2, 1:
            return equal(mine[1], gold)
        case 1, 2:
            return equal(said, wanted[1])
    return False


def _as_expressions(said: str, gold: str) -> bool:
    mine, wanted = _expression(said), _expression(gold)
    if mine is None or wanted is None:
        return False
    tests: tuple[Callable[[], bool], ...] = (
        lambda: mine == wanted,
        lambda: mine.equals(wanted),
        lambda: _simplified(mine - wanted) == 0,
        lambda: abs(mine.lhs - mine.rhs).equals(abs(wanted.lhs - wanted.rhs)),
        lambda: _near(float(mine.evalf()), float(wanted.evalf())),
        lambda: mine.shape == wanted.shape and _rounded(mine).equals(_rounded(wanted)),
    )
    return any(_holds(test) for test in tests)


def _simplified(expression: Any) -> Any:
    from sympy import simplify

    return simplify(expression)


def _rounded(matrix: Any) -> Any:
    return matrix.applyfunc(lambda cell: round(cell, 3))


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return bool(test())
    except Exception:  # the library raises what it likes: then the expressions are not shown equal
        return False


def _expression(text: str) -> Any:
    """Returns what a text means: as LaTeX, else as the notation of a calculator, else None."""
    from latex2sympy2_extended import latex2sympy
    from sympy.parsing.sympy_parser import convert_xor, parse_expr, standard_transformations

    if re.search(r"__|\bimport\b|\blambda\b|[\"'@]", text):  # parse_expr evaluates what it is given
        return None
    for parse in (
        latex2sympy,
        lambda one: parse_expr(one, transformations=(*standard_transformations, convert_xor)),
    ):
        try:
            return parse(text)
        except Exception:  # the other notation, then
            continue
    return None
