"""Find the YAML files of a package by name: protocols, prompts and suites."""

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


def check_name(name: str, names: tuple[str, ...], option: str) -> None:
    """Refuse an unknown name with the nearest and all existing names."""
    if name not in names:
        text = f"unknown {option.removeprefix('--').lower()} '{name}'{suggestion(name, names)}"
        raise RecipeError(Problem(option, text, f"Choose one of {', '.join(names)}"))
