r"""The grader of the paper's math results, reimplemented from its rules.

The answer is the first of: "final answer is $...$. I hope", the last box, "he answer is", "final
answer is", the same in Chinese, the last number. Both sides are then normalized, and are equal as
text, as numbers, item by item, as equations, or as expressions. The grader is more lenient than
math-verify on numbers and intervals, and stricter on unordered lists, mixed numbers and plus-minus.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from .normalize import normalize_answer

NUMBER = re.compile(r"-?\d*\.?\d+")
RELATIVE = 1e-4
"""Tolerance for numbers that are not both integers."""
LETTERS = "ABCDE"
LETTER = re.compile(r"\b[A-E]\b")
ANNOUNCED = re.compile("choice is|answer is")
BRACKETED = re.compile(r"[(\[].+[)\]]", re.DOTALL)
MATRIX = "\\begin{pmatrix}", "\\end{pmatrix}"
Number = int | float


def grade(gold: str, response: str) -> tuple[float, str | None]:
    """Return 1 if the answer of a response equals the gold answer, and that answer."""
    return _grade(normalize_answer(normalize_answer(gold)), response, units=False)


def grade_with_units(gold: str, response: str) -> tuple[float, str | None]:
    """Grade without removing units, as for the problems of Minerva."""
    return _grade(normalize_answer(gold, units=True), response, units=True)


def _grade(gold: str, response: str, *, units: bool) -> tuple[float, str | None]:
    answer = extract_answer(response)
    for _ in range(2):  # the original normalizes twice
        answer = normalize_answer(answer, units=units)
    if _is_letter(gold):
        answer = answer if _is_letter(answer) else _choice(response)
    elif set(gold) <= set(LETTERS) and not set(answer) <= set(LETTERS):
        answer = "".join(letter for letter in answer if letter in LETTERS)
    return float(equal(answer, gold)), answer or None


def extract_answer(response: str) -> str:
    """Return the answer of a response, or an empty string."""
    answer = _raw_answer(response.replace("ки", ""))
    answer = re.sub(r"\n\s*", "", answer).removeprefix(":")
    return answer.removesuffix(".").removesuffix("/")


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text in LETTERS


def _raw_answer(response: str) -> str:
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
    """Return the text between the first brace and the matching one, or the end of the text."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:place]
    return text[1:]


def _choice(response: str) -> str:
    """Return the letter that a response to a question with options chooses."""
    text = response.strip("\n")
    if any(text.count(mark) > 1 for mark in ("choice is", "answer is")):
        text = text.split("\n\n")[0]
    *before, last = ANNOUNCED.split(text)
    return _letter(last, first=bool(before))


def _letter(text: str, *, first: bool = False) -> str:
    """Return the first or last standalone letter, or the text if there is none."""
    text = text.strip("\n").rstrip(".").rstrip("/").strip(" ").lstrip(":")
    letters = LETTER.findall(text.upper())
    chosen = letters[0 if first else -1] if letters else text.strip().strip(".")
    return chosen.rstrip(".").rstrip("/")


def equal(answer: str, gold: str) -> bool:
    """Return whether two normalized answers are equal by one of the rules."""
    if answer.strip().lower() == gold.strip().lower():
        return True
    if _is_letter(gold) and _letter(answer) == gold:
        return True
    number, target = _number(answer), _number(gold)
    if number is not None and target is not None:
        return any(_close(number, value) for value in (target / 100, target, target * 100))
    if not answer:
        return False
    answer, gold = answer.strip(), gold.strip()
    if "pmatrix" in answer and "pmatrix" not in gold:
        gold = _as_matrix(gold)
    rules = (_without_brackets, _by_items, _by_cells, _by_equation, _as_expressions)
    return any(rule(answer, gold) for rule in rules)


def _close(left: Number, right: Number) -> bool:
    """Compare integers exactly and other numbers with a tolerance."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return math.isclose(left, right, rel_tol=RELATIVE)


def _number(text: str) -> Number | None:
    plain = text.replace(",", "")
    try:
        value = float(plain)
        return int(value) if value.is_integer() else value
    except ValueError:
        pass
    if not plain.endswith("%"):
        return None
    try:
        return float(plain.removesuffix("%").removesuffix("\\")) / 100
    except ValueError:
        return None


def _as_matrix(text: str) -> str:
    """Return sets in braces as columns."""
    begin, end = MATRIX
    sets = re.findall(r"\{.*,.*\}", text)
    return ", ".join(begin + items.strip("{}").replace(",", "\\") + end for items in sets)


def _without_brackets(answer: str, gold: str) -> bool:
    square = answer.startswith("[") and answer.endswith("]") and not gold.startswith("(")
    round_ = answer.startswith("(") and answer.endswith(")") and not gold.startswith("[")
    if square or round_:
        answer, gold = answer.strip("[]()"), gold.strip("[]()")
    bare = str.maketrans("", "", "{}()")
    return answer.translate(bare).lower() == gold.translate(bare).lower()


def _by_items(answer: str, gold: str) -> bool:
    """Compare tuples and intervals item by item in order, ignoring the kind of bracket."""
    if not (BRACKETED.match(answer) and BRACKETED.match(gold)):
        return False
    items, targets = answer[1:-1].split(","), gold[1:-1].split(",")
    return len(items) == len(targets) and all(map(equal, items, targets))


def _by_cells(answer: str, gold: str) -> bool:
    cells, targets = _cells(answer), _cells(gold)
    if cells is None or targets is None or [*map(len, cells)] != [*map(len, targets)]:
        return False
    return all(all(map(equal, row, other)) for row, other in zip(cells, targets, strict=True))


def _cells(text: str) -> list[list[str]] | None:
    begin, end = MATRIX
    if not (text.startswith(begin) and text.endswith(end)):
        return None
    rows = text.removeprefix(begin).removesuffix(end).split(r"\\")
    return [row.strip().split("&") for row in rows if row.strip()]


def _by_equation(answer: str, gold: str) -> bool:
    sides, targets = answer.split("="), gold.split("=")
    match len(sides), len(targets):
        case 2, 2:
            left, right = (f"{a.strip()} - ({b.strip()})" for a, b in (sides, targets))
            return _as_expressions(left, right) or _as_expressions(f"-({left})", right)
        case 2, 1:
            return equal(sides[1], gold)
        case 1, 2:
            return equal(answer, targets[1])
    return False


def _as_expressions(answer: str, gold: str) -> bool:
    from sympy import simplify

    a, b = _expression(answer), _expression(gold)
    if a is None or b is None:
        return False
    tests: tuple[Callable[[], bool], ...] = (
        lambda: a == b,
        lambda: a.equals(b),
        lambda: simplify(a - b) == 0,
        lambda: abs(a.lhs - a.rhs).equals(abs(b.lhs - b.rhs)),
        lambda: _close(float(a.evalf()), float(b.evalf())),
        lambda: a.shape == b.shape and _rounded(a).equals(_rounded(b)),
    )
    return any(_holds(test) for test in tests)


def _rounded(matrix: Any) -> Any:
    return matrix.applyfunc(lambda cell: round(cell, 3))


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return bool(test())
    except Exception:  # the library raises any exception: the expressions are not shown to be equal
        return False


def _expression(text: str) -> Any:
    """Parse a text as LaTeX or else as calculator notation; `None` if it is neither."""
    from latex2sympy2_extended import latex2sympy
    from sympy.parsing.sympy_parser import convert_xor, parse_expr, standard_transformations

    if re.search(r"__|\bimport\b|\blambda\b|[\"'@]", text):  # parse_expr evaluates its input
        return None
    transformations = (*standard_transformations, convert_xor)
    for parse in (latex2sympy, partial(parse_expr, transformations=transformations)):
        try:
            return parse(text)
        except Exception:  # try the other notation
            continue
    return None
