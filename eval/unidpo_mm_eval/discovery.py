"""Discovery by file name: the YAML files and the modules of a package."""

import importlib
import pkgutil
from importlib.resources import files
from typing import Any

import yaml

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion


def yaml_names(package: str) -> tuple[str, ...]:
    """Return the names of the YAML files of a package."""
    names = (path.name for path in files(package).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_yaml(package: str, name: str, option: str) -> dict[str, Any]:
    """Read one YAML file of a package; its name becomes the key `id`."""
    check_name(name, yaml_names(package), option)
    content = yaml.safe_load((files(package) / f"{name}.yaml").read_text("utf-8"))
    return {"id": name, **content}


def module_names(package: str) -> tuple[str, ...]:
    """Return the names of the public modules of a package, without importing any of them."""
    paths = importlib.import_module(package).__path__
    names = (module.name for module in pkgutil.iter_modules(paths))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def load_module(package: str, name: str, exported: str, option: str) -> Any:
    """Return an object that one module of a package exports."""
    check_name(name, module_names(package), option)
    return getattr(importlib.import_module(f"{package}.{name}"), exported)


def check_name(name: str, names: tuple[str, ...], option: str) -> None:
    """Refuse an unknown name with the nearest and all existing names."""
    if name not in names:
        text = f"unknown {option.removeprefix('--').lower()} '{name}'{suggestion(name, names)}"
        raise RecipeError(Problem(option, text, f"Choose one of {', '.join(names)}"))
