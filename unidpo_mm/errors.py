"""The errors of unidpo-mm: every problem says where it is, what was found and what to do.

A run never stops at the first mistake of a file: readers and checkers collect `Problem`s and raise
them together, so that one look at the message is enough to repair a recipe or a data set.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "AdapterError",
    "DataError",
    "ModelError",
    "PictureError",
    "Problem",
    "RecipeError",
    "RowTooLong",
    "UniDPOError",
]

MAX_PRINTED = 50
"""Problems printed in one message; the rest are counted, never lost from `UniDPOError.problems`."""


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
        found: What was found there, as a sentence without its full stop.
        remedy: What to do about it, starting with a verb.
    """

    where: str
    found: str
    remedy: str

    def __post_init__(self) -> None:
        # names and values come from files: none of them may steer a terminal
        for name in ("where", "found", "remedy"):
            object.__setattr__(self, name, CONTROL.sub(_escaped, getattr(self, name)))

    def __str__(self) -> str:
        stop = "" if self.found.endswith("?") else "."
        return f"{self.where}: {self.found}{stop} {self.remedy}."


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
        lines = [f"  - {problem}" for problem in self.problems[:MAX_PRINTED]]
        hidden = len(self.problems) - MAX_PRINTED
        if hidden > 0:
            lines.append(f"  ... and {hidden} more")
        return "\n".join([f"{self.headline} ({len(self.problems)} problems):", *lines])


class RecipeError(UniDPOError):
    """A recipe, an override or a configuration value cannot be used."""

    headline = "the recipe cannot be used"


class DataError(UniDPOError):
    """A data file, a row or a picture cannot be used."""

    headline = "the data cannot be used"


class PictureError(DataError):
    """A picture is missing, broken or too large; a run may leave such rows out and count them."""


class RowTooLong(DataError):
    """A row does not fit `max_length`; a run may leave such rows out and count them."""


class ModelError(UniDPOError):
    """A model, its processor or its parts cannot be used as asked."""

    headline = "the model cannot be used"


class AdapterError(UniDPOError):
    """An adapter returned something that breaks the contract of `unidpo_mm.adapter`."""

    headline = "the adapter broke its contract"
