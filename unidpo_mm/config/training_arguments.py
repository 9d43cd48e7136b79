"""The arguments of `transformers.TrainingArguments`, and whether they are honored or refused.

The trainer replaces parts of transformers' loop (data loading, loss, evaluation). An argument that
only those parts read would silently have no effect, so it is refused unless it has its default
value. `tables/training_arguments.yaml` lists them all, and `page` writes the list into
docs/training_arguments.md.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from ..errors import Problem

__all__ = [
    "ARGUMENTS",
    "REMOVED",
    "Argument",
    "refused_values",
    "training_arguments",
]


@dataclass(frozen=True)
class Argument:
    """The treatment of an argument.

    Attributes:
        note: The difference from transformers, or the reason why it is refused.
        remedy: What to do instead of setting a refused argument, starting with a verb.
        refused: Whether every value but the default is refused.
        accepted: Further values that are accepted because they request the actual behavior.
    """

    note: str = ""
    remedy: str = "Remove it"
    refused: bool = False
    accepted: Sequence[Any] = ()


TABLE = yaml.safe_load(
    (files(__package__) / "tables" / "training_arguments.yaml").read_text(encoding="utf-8")
)

ARGUMENTS: dict[str, Argument] = {
    **{name: Argument() for name in TABLE["unchanged"].split()},
    **{name: Argument(note) for names, note in TABLE["honored"].items() for name in names.split()},
    **{
        name: Argument(refused=True, **entry)
        for names, entry in TABLE["refused"].items()
        for name in names.split()
    },
}
"""All arguments of the supported versions of transformers."""

REMOVED: dict[str, str] = TABLE["removed"]
"""Arguments of other versions of transformers, and what to do instead."""


@cache
def training_arguments() -> dict[str, Any]:
    """Return the arguments that the installed transformers accepts, with their defaults."""
    from transformers import TrainingArguments  # takes seconds

    return {
        field.name: (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        for field in dataclasses.fields(TrainingArguments)
        if field.init
    }


def refused_values(values: Mapping[str, Any], *, prefix: str = "") -> list[Problem]:
    """Return a problem for every argument whose value would have no effect.

    Args:
        values: Argument -> value; names that transformers does not have are skipped.
        prefix: Prefix of the argument in each problem, for example ``train.``.
    """
    problems = []
    for name, value in values.items():
        argument = ARGUMENTS.get(name)
        if argument is None or not argument.refused:
            continue
        default = training_arguments().get(name)
        if value is None or value == default or value in argument.accepted:
            continue
        problems.append(
            Problem(f"{prefix}{name}", f"not supported: {argument.note}", argument.remedy)
        )
    return problems
