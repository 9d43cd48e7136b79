"""The errors of unidpo-mm: every problem says where it is, what was found and what to do.

A run never stops at the first mistake of a file: readers and checkers collect `Problem`s and raise
them together, so that one look at the message is enough to repair a recipe or a data set.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AdapterError",
    "DataError",
    "ImageError",
    "ModelError",
    "Problem",
    "RecipeError",
    "RowTooLong",
    "UniDPOError",
    "counted",
    "counted_problems",
    "grouped",
]

MAX_PRINTED = 50
"""Lines printed in one message; the rest are counted, never lost from `UniDPOError.problems`."""
SHORTEST_GROUP = 4
"""Problems alike that share a line; fewer are printed one by one."""
EXAMPLES = 3
"""Places that the line of a group names."""
MAX_CHARACTERS = 2000
"""Longest part of a problem: values and names that it quotes come from files."""
ROW = re.compile(r" row [0-9]")
"""What the place of a row of data holds; only such problems are grouped."""
VALUES = re.compile(r"'[^']*'|[0-9][0-9.,e+-]*")
"""What may differ between problems that are alike: quoted values and numbers."""


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that terminals take for commands; line breaks and tabs are none."""


def _escaped(found: "re.Match[str]") -> str:
    return found[0].encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: File, row and field, or the key path of a recipe, for example
            ``pairs.jsonl row 7, field 'chosen'``.
        message: What is wrong, as a sentence without its full stop.
        remedy: What to do about it, starting with a verb.
    """

    where: str
    message: str
    remedy: str

    def __post_init__(self) -> None:
        # names and values come from files: none of them may steer a terminal
        for name in ("where", "message", "remedy"):
            text = getattr(self, name)
            if len(text) > MAX_CHARACTERS:
                text = f"{text[:MAX_CHARACTERS]}..."
            object.__setattr__(self, name, CONTROL.sub(_escaped, text))

    def __str__(self) -> str:
        stop = "" if self.message.endswith("?") else "."
        return f"{self.where}: {self.message}{stop} {self.remedy}."


def grouped(problems: Iterable[Problem]) -> list[tuple[str, int]]:
    """Return problems as lines, one line for all rows of data with the same mistake.

    Problems are alike if they have one remedy and differ in their row, and in quoted values and
    numbers, alone.

    Returns:
        (line, number of its problems), in the order of the first problem of each.
    """
    alike: dict[Any, list[Problem]] = {}
    for problem in problems:
        key: Any = problem
        if ROW.search(problem.where):
            key = VALUES.sub("", problem.message), problem.remedy
        alike.setdefault(key, []).append(problem)
    lines = []
    for group in alike.values():
        if len(group) < SHORTEST_GROUP:
            lines += [(str(problem), 1) for problem in group]
            continue
        places = list(dict.fromkeys(problem.where for problem in group))
        others = "; ".join(places[1:EXAMPLES])
        rest = len(group) - 1
        also = f"The same for {rest:,} more, for example {others}" if others else f"{rest:,} more"
        lines.append((f"{group[0]} {also}.", len(group)))
    return lines


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular for 1.

    Args:
        number: The number.
        noun: The noun in the singular, for example ``pair``, or with its verb, ``pair has``.
        plural: The plural, if it is not the noun with an s, for example ``pairs have``.
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def counted_problems(number: int) -> str:
    """Return a number of problems in words."""
    return counted(number, "problem")


class UniDPOError(Exception):
    """Base of all errors raised on purpose; carries every problem that was found.

    Args:
        problems: One or more problems, or a ready-made message.
    """

    headline = "something is wrong"
    exit_code = 2
    """Exit code of the command line: 2 for what a user can fix, as for a wrong command line."""

    def __init__(self, problems: Problem | Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            self.problems: tuple[Problem, ...] = ()
            super().__init__(problems)
            return
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self._message())

    def __reduce__(self) -> tuple[type["UniDPOError"], tuple["tuple[Problem, ...] | str"]]:
        """Keep the problems when an error crosses processes."""
        return type(self), (self.problems or str(self),)

    def _message(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        groups = grouped(self.problems)
        lines = [f"  - {line}" for line, _ in groups[:MAX_PRINTED]]
        hidden = sum(count for _, count in groups[MAX_PRINTED:])
        if hidden > 0:
            lines.append(f"  ... and {hidden:,} more")
        return "\n".join([f"{self.headline} ({counted_problems(len(self.problems))}):", *lines])


class RecipeError(UniDPOError):
    """A recipe, an override or a configuration value cannot be used."""

    headline = "the recipe cannot be used"


class DataError(UniDPOError):
    """A data file, a row or an image cannot be used."""

    headline = "the data cannot be used"


class ImageError(DataError):
    """An image is missing, broken or too large; a run may leave such rows out and count them."""


class RowTooLong(DataError):
    """A row does not fit `max_length`; a run may leave such rows out and count them."""


class ModelError(UniDPOError):
    """A model, its processor or its parts cannot be used as asked."""

    headline = "the model cannot be used"


class AdapterError(UniDPOError):
    """An adapter returned something that breaks the contract of `unidpo_mm.adapter`."""

    headline = "the adapter broke its contract"
