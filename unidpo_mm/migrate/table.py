"""The tables in `tables/`: for each key and loss of a framework, its counterpart in a recipe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ..config.problems import describe
from ..config.yaml_loader import parse_yaml
from ..errors import Problem, RecipeError

__all__ = ["UNSET", "Key", "as_list", "load_file", "load_table"]

UNSET: Any = object()
"""Default of a key that has none, or the same one as the recipe."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """The counterpart of one key of another framework.

    Attributes:
        target: Key path in the recipe; empty if the recipe has no counterpart.
        default: The framework's default, if it differs from the recipe's and changes the run.
        values: Value in the framework, as text -> value in the recipe; others remain the same.
        only_values: Whether all other values are errors.
        convert: Name of a function in `trainer_arguments.CONVERT` for what `values` cannot express.
        group: Name of the framework's converter that handles the key together with others; empty
            if the key is converted by itself.
        note: What differs in meaning, or why there is no counterpart and what to do instead.
        docs_note: The same, if it is for the documentation only and not for a migration.
    """

    target: str = ""
    default: Any = UNSET
    values: Mapping[str, Any] = field(default_factory=dict)
    only_values: bool = False
    convert: str = ""
    group: str = ""
    note: str = ""
    docs_note: str = ""

    def translate(self, value: Any) -> Any:
        """Return the value in the recipe.

        Raises:
            RecipeError: If there is none; `where` is empty.
        """
        name = value if isinstance(value, str) else json.dumps(value)
        if name in self.values:
            return self.values[name]
        if self.only_values:
            problem = f"{describe(value)} is not one of its values"
            raise RecipeError(Problem("", problem, f"Use one of {', '.join(self.values)}"))
        return value


@cache
def load_file(name: str) -> Mapping[str, Any]:
    """Return the sections of the file with a name."""
    path = files(__package__) / "tables" / f"{name}.yaml"
    document = parse_yaml(path.read_text(encoding="utf-8"), path.name)
    if document.problems:
        raise RecipeError(document.problems)
    sections: dict[str, Any] = document.data
    return sections


def load_table(name: str) -> dict[str, Key]:
    """Return the keys of the table with a name."""
    file = load_file(name)
    keys = {key: Key(**entry) for key, entry in file["keys"].items()}
    for names, reason in file["not_migrated"].items():
        keys.update({key: Key(note=reason) for key in names.split()})
    return keys


def as_list(value: Any) -> list[str]:
    """Return the names in a list, or in a text that separates them by commas."""
    if isinstance(value, int | float):
        return [str(value)]
    names = value.split(",") if isinstance(value, str) else value or []
    return [str(name).strip() for name in names]
