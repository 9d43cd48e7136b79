"""YAML files that come with the package and are found by their names: protocols and suites."""

from importlib.resources import files
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion

__all__ = ["load_shipped", "shipped_names"]

Kind = TypeVar("Kind")


def shipped_names(package: str) -> tuple[str, ...]:
    """Returns the names of the YAML files of a package."""
    found = (path.name for path in files(package).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


def load_shipped(package: str, name: str, kind: type[Kind], option: str) -> Kind:
    """Returns what one YAML file of a package says; its name is its id.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    known = shipped_names(package)
    if name not in known:
        what = option.removeprefix("--")
        found = f"there is no {what} '{name}'{suggestion(name, known)}"
        raise RecipeError(Problem(option, found, f"Choose one of {', '.join(known)}"))
    content: Any = yaml.safe_load((files(package) / f"{name}.yaml").read_text("utf-8"))
    return TypeAdapter(kind).validate_python({"id": name, **content})
