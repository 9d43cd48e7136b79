"""Find the recipes that are shipped with the package, whether installed or in a checkout."""

from pathlib import Path

from ..errors import Problem, RecipeError

__all__ = ["configs_folder", "shipped_recipe"]

LAUNCHERS = "accelerate"
"""Directory of accelerate configurations, which are not recipes."""

PACKAGE = Path(__file__).parent.parent


def configs_folder() -> Path:
    """Return the directory `configs`: inside the package in a wheel, next to it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def shipped_recipe(name: str, *, kind: str = "recipe") -> Path:
    """Return the path of a shipped recipe or sweep, for example ``quickstart/uni_dpo.yaml``.

    Raises:
        RecipeError: If there is none of that name; the message lists those that exist.
    """
    path = configs_folder() / name
    if path.is_file():
        return path
    names = (path.relative_to(configs_folder()) for path in configs_folder().rglob("*.yaml"))
    shipped = sorted(str(name) for name in names if name.parts[0] != LAUNCHERS)
    remedy = f"Choose one of {', '.join(shipped)}"
    problem = f"there is no such file, and no {kind} of that name is shipped with the package"
    raise RecipeError(Problem(name, problem, remedy))
