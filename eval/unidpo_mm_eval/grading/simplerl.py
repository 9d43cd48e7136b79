r"""The grader of the paper's math results, written anew from its rules.

An answer is looked for in this order: "final answer is $...$. I hope", the last box, "he answer
is", "final answer is", the same in Chinese, the last number. Both sides are then spelt alike, and
are equal as text, as numbers, item by item, as equations, or as expressions. It is more lenient
than math-verify on numbers and intervals, and stricter on unordered lists, mixed numbers and
plus-minus.
"""

import re
from collections.abc import Callable
from typing import Any

from ..extract.boxed import boxed
from .spelling import spelt

__all__ = ["equal", "extracted", "grade"]

NUMBER = re.compile(r"-?\d*\.?\d+")
RELATIVE = 1e-4
"""Of numbers that are no whole ones."""
BRACKETS = "()[]{}"
MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.DOTALL)


def grade(gold: str, response: str) -> tuple[float, str | None]:
    """Returns 1 where the answer found in a response equals the gold answer, and that answer."""
    said = spelt(extracted(response))
    return float(equal(said, spelt(gold))), said or None


def extracted(response: str) -> str:
    """Returns the answer of a response; an empty string where there is none."""
    found = _found(response)
    found = re.sub(r"\n\s*", "", found).removeprefix(":")
    return found.removesuffix(".").removesuffix("/")


def _found(response: str) -> str:
    if "final answer is $" in response and "$. I hope" in response:
        return response.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in response:
        after = response.rpartition("boxed")[2]
        boxes = boxed(rf"\boxed{after}")
        if after.startswith("{"):
            return boxes[0] if boxes else after[1:]
        return after.partition("$")[0].strip()
    for mark in ("he answer is", "final answer is"):
        if mark in response:
            return response.rpartition(mark)[2].strip()
    if "答案是" in response:
        return response.rpartition("答案是")[2].strip().partition("\n\n")[0].strip()
    numbers = NUMBER.findall(response.replace(",", ""))
    return numbers[-1] if numbers else ""


def equal(said: str, gold: str) -> bool:
    """Says whether two answers, both spelt alike, are equal by one of the rules."""
    if said.strip().lower() == gold.strip().lower():
        return True
    mine, wanted = _number(said), _number(gold)
    if mine is not None and wanted is not None:
        return any(_near(mine, value) for value in (wanted / 100, wanted, wanted * 100))
    if not said:
        return False
    rules = (_without_brackets, _by_items, _by_cells, _by_equation, _as_expressions)
    return any(rule(said, gold) for rule in rules)


def _near(one: float, other: float) -> bool:
    """Compares whole numbers exactly, others with a tolerance."""
    if one == other or (one.is_integer() and other.is_integer()):
        return one == other
    return abs(one - other) <= RELATIVE * max(abs(one), abs(other))


def _number(text: str) -> float | None:
    plain = text.replace(",", "")
    percent = plain.endswith("%")
    try:
        value = float(plain.removesuffix("%").removesuffix("\\"))
    except ValueError:
        return None
    return value / 100 if percent else value


def _without_brackets(said: str, gold: str) -> bool:
    bare = str.maketrans("", "", BRACKETS)
    return said.translate(bare).lower() == gold.translate(bare).lower()


def _by_items(said: str, gold: str) -> bool:
    """Compares tuples and intervals item by item, in their order."""
    if not (_is_bracketed(said) and _is_bracketed(gold)):
        return False
    mine, wanted = said[1:-1].split(","), gold[1:-1].split(",")
    if len(mine) != len(wanted) or len(mine) == 1:
        return False
    return all(equal(a.strip(), b.strip()) for a, b in zip(mine, wanted, strict=True))


def _is_bracketed(text: str) -> bool:
    return len(text) > 1 and text[0] in "([" and text[-1] in ")]"


def _by_cells(said: str, gold: str) -> bool:
    mine, wanted = _cells(said), _cells(gold)
    if mine is None or wanted is None or [*map(len, mine)] != [*map(len, wanted)]:
        return False
    return all(
        equal(a, b)
        for row, other in zip(mine, wanted, strict=True)
        for a, b in zip(row, other, strict=True)
    )


def _cells(text: str) -> list[list[str]] | None:
    found = MATRIX.fullmatch(text)
    if found is None:
        return None
    rows = [row for row in found[1].split(r"\\") if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def _by_equation(said: str, gold: str) -> bool:
    mine, wanted = said.split("="), gold.split("=")
    if len(mine) == len(wanted) == 2:
        one, other = (f"({left.strip()}) - ({right.strip()})" for left, right in (mine, wanted))
        return _as_expressions(one, other) or _as_expressions(f"-({one})", other)
    for sides, single in ((mine, gold), (wanted, said)):  # a name that is given a value
        if len(sides) == 2 and len(sides[0].strip()) <= 2 and "=" not in single:
            return equal(sides[1].strip(), single)
    return False


def _as_expressions(said: str, gold: str) -> bool:
    mine, wanted = _expression(said), _expression(gold)
    if mine is None or wanted is None:
        return False
    tests: tuple[Callable[[], bool], ...] = (
        lambda: bool(mine == wanted),
        lambda: bool(mine.equals(wanted)),
        lambda: _simplified(mine - wanted) == 0,
        lambda: _near(float(mine.evalf()), float(wanted.evalf())),
    )
    return any(_holds(test) for test in tests)


def _simplified(expression: Any) -> Any:
    from sympy import simplify

    return simplify(expression)


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return bool(test())
    except Exception:  # the library raises what it likes: then the expressions are not shown equal
        return False


def _expression(text: str) -> Any:
    """Returns what a text means: as LaTeX, else as the notation of a calculator, else None."""
    from latex2sympy2_extended import latex2sympy
    from sympy.parsing.sympy_parser import (
        implicit_multiplication_application,
        parse_expr,
        standard_transformations,
    )

    calculator = (*standard_transformations, implicit_multiplication_application)
    if re.search(r"__|\bimport\b|\blambda\b|[\"'@]", text):  # parse_expr evaluates what it is given
        return None
    for parse in (
        latex2sympy,
        lambda one: parse_expr(one.replace("^", "**"), transformations=calculator),
    ):
        try:
            return parse(text)
        except Exception:  # the other notation, then
            continue
    return None
