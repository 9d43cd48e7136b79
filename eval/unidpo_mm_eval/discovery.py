"""What comes with the package and is found by the name of its file: YAML files and modules."""

import importlib
import pkgutil
from importlib.resources import files
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion

__all__ = ["load_module", "load_shipped", "module_names", "shipped_names"]

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
    _refuse_unknown(name, shipped_names(package), option)
    content: Any = yaml.safe_load((files(package) / f"{name}.yaml").read_text("utf-8"))
    return TypeAdapter(kind).validate_python({"id": name, **content})


def module_names(package: str) -> tuple[str, ...]:
    """Returns the names of the modules of a package, without importing any of them.

    Those that begin with an underscore are shared by others.
    """
    paths = importlib.import_module(package).__path__
    names = (module.name for module in pkgutil.iter_modules(paths))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def load_module(package: str, name: str, exported: str, option: str) -> Any:
    """Returns what one module of a package exports.

    Raises:
        RecipeError: If no module has that name; lists what exists.
    """
    _refuse_unknown(name, module_names(package), option)
    return getattr(importlib.import_module(f"{package}.{name}"), exported)


def _refuse_unknown(name: str, known: tuple[str, ...], option: str) -> None:
    if name not in known:
        what = option.removeprefix("--").lower()
        found = f"there is no {what} '{name}'{suggestion(name, known)}"
        raise RecipeError(Problem(option, found, f"Choose one of {', '.join(known)}"))
