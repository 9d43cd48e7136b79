"""Conditions on scores, such as ``claims >= 0``."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Condition", "parse_condition"]

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
CONDITION = re.compile(
    r"\s*([A-Za-z][A-Za-z0-9_]*)\s*(>=|<=|==|>|<)\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*"
)


@dataclass(frozen=True)
class Condition:
    """A condition on one score of a response.

    Attributes:
        score: Name of the score.
        operator: One of `OPERATORS`.
        value: What the score is compared with.
    """

    score: str
    operator: str
    value: float

    def holds(self, scores: Mapping[str, float | None]) -> bool:
        """Return whether it holds; it does not for a response without the score."""
        score = scores.get(self.score)
        return score is not None and OPERATORS[self.operator](score, self.value)


def parse_condition(text: str) -> Condition | None:
    """Return the condition that a text states; `None` if it states none."""
    match = CONDITION.fullmatch(text)
    if match is None:
        return None
    try:
        return Condition(match[1], match[2], float(match[3]))
    except ValueError:  # 1.2.3
        return None
