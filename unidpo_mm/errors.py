"""Errors: each problem has a place, a message and a remedy.

Readers and checkers do not stop at the first mistake: they collect `Problem`s and raise them
together, so that a recipe or a data set can be fixed at once.
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
    "ProcessorError",
    "RecipeError",
    "RowTooLong",
    "UniDPOError",
    "VideoError",
    "counted",
    "grouped",
]

MAX_PRINTED = 50
"""Maximum lines of a message; the rest are counted, and `UniDPOError.problems` has them all."""
SHORTEST_GROUP = 4
"""Minimum number of similar problems that share a line; fewer are printed one by one."""
EXAMPLES = 3
"""Number of places in the line of a group."""
MAX_CHARACTERS = 2000
"""Maximum length of each part of a problem, which may quote values and names from files."""
ROW = re.compile(r" row [0-9]")
"""The part of a place that refers to a row of data; only such problems are grouped."""
VALUES = re.compile(r"'[^']*'|[0-9][0-9.,e+-]*")
"""Parts that may differ between similar problems: quoted values and numbers."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, which terminals may interpret, except line breaks and tabs."""


def _escaped(match: "re.Match[str]") -> str:
    return match[0].encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake of the user.

    Attributes:
        where: File, row and field, or the key path of a recipe, for example
            ``pairs.jsonl row 7, field 'chosen'``.
        message: What is wrong, as a sentence without its period.
        remedy: How to fix it, starting with a verb.
    """

    where: str
    message: str
    remedy: str

    def __post_init__(self) -> None:
        # names and values come from files and must not control the terminal
        for name in ("where", "message", "remedy"):
            text = getattr(self, name)
            if len(text) > MAX_CHARACTERS:
                text = f"{text[:MAX_CHARACTERS]}..."
            object.__setattr__(self, name, CONTROL.sub(_escaped, text))

    def __str__(self) -> str:
        stop = "" if self.message.endswith("?") else "."
        return f"{self.where}: {self.message}{stop} {self.remedy}."


def grouped(problems: Iterable[Problem]) -> list[tuple[str, int]]:
    """Return problems as lines, with one line for all rows of data with the same mistake.

    Problems are similar if they have the same remedy and differ only in their row, in quoted values
    and in numbers.

    Returns:
        (line, number of problems), in the order of the first problem of each line.
    """
    similar: dict[Any, list[Problem]] = {}
    for problem in problems:
        key: Any = problem
        if ROW.search(problem.where):
            key = VALUES.sub("", problem.message), problem.remedy
        similar.setdefault(key, []).append(problem)
    lines = []
    for group in similar.values():
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
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {noun if number == 1 else plural or noun + 's'}"


class UniDPOError(Exception):
    """Base class of all errors that are raised on purpose.

    Args:
        problems: One or more problems, or a message.
    """

    headline = "there are problems"
    exit_code = 2
    """Exit code of the command line: 2, as for invalid arguments, if the user can fix it."""

    def __init__(self, problems: Problem | Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            self.problems: tuple[Problem, ...] = ()
            super().__init__(problems)
            return
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self._message())

    def __reduce__(self) -> tuple[type["UniDPOError"], tuple["tuple[Problem, ...] | str"]]:
        """Keep the problems if the error is pickled."""
        return type(self), (self.problems or str(self),)

    def _message(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        groups = grouped(self.problems)
        lines = [f"  - {line}" for line, _ in groups[:MAX_PRINTED]]
        hidden = sum(count for _, count in groups[MAX_PRINTED:])
        if hidden > 0:
            lines.append(f"  ... and {hidden:,} more")
        return "\n".join([f"{self.headline} ({counted(len(self.problems), 'problem')}):", *lines])


class RecipeError(UniDPOError):
    """A recipe, an override or a configuration value cannot be used."""

    headline = "the recipe cannot be used"


class DataError(UniDPOError):
    """A data file, a row or an image cannot be used."""

    headline = "the data cannot be used"


class ImageError(DataError):
    """An image is missing, broken or too large; a run may skip and count such rows."""


class VideoError(ImageError):
    """A video is missing, broken or too large; a run may skip and count such rows."""


class RowTooLong(DataError):
    """A row does not fit `max_length`; a run may skip and count such rows."""


class ModelError(UniDPOError):
    """A model, its processor or its parts cannot be used."""

    headline = "the model cannot be used"


class ProcessorError(ModelError):
    """A processor does not fit its model, or cannot encode an image."""


class AdapterError(UniDPOError):
    """An adapter returned something that violates `unidpo_mm.adapter`."""

    headline = "the adapter violates its interface"
