"""Finds the recipes that come with the package, installed or in a checkout."""

from pathlib import Path

from ..errors import Problem, RecipeError

__all__ = ["configs_folder", "shipped_recipe"]

LAUNCHERS = "accelerate"
"""Directory of configurations of accelerate, which are not recipes."""

PACKAGE = Path(__file__).parent.parent


def configs_folder() -> Path:
    """Return the folder `configs`: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def shipped_recipe(name: str, *, kind: str = "recipe") -> Path:
    """Return the path of a shipped recipe or sweep, for example ``quickstart/uni_dpo.yaml``.

    Raises:
        RecipeError: If there is neither a file nor a shipped one of that name; lists what exists.
    """
    path = configs_folder() / name
    if path.is_file():
        return path
    names = (path.relative_to(configs_folder()) for path in configs_folder().rglob("*.yaml"))
    known = sorted(str(name) for name in names if name.parts[0] != LAUNCHERS)
    remedy = f"Choose one of {', '.join(known)}"
    problem = f"there is no such file, and no {kind} of that name comes with the package"
    raise RecipeError(Problem(name, problem, remedy))
