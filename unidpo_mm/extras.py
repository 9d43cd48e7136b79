"""Installed packages: their versions, and the extra that installs a missing one."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from .errors import Problem

__all__ = ["installed_version", "missing_package"]

PACKAGE = "unidpo-mm"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*extra\s*==\s*['\"](?P<extra>[^'\"]+)")
FOR_DEVELOPERS = {"test", "dev", "docs"}

installed_version = cache(version)
"""Return the version of an installed package; its metadata are read once."""


def missing_package(error: BaseException, command: str = "") -> Problem | None:
    """Describe an import error if the package belongs to an extra that is not installed.

    Args:
        error: The import error.
        command: The command that failed; an extra of the same name is preferred.

    Returns:
        The problem; `None` if no extra contains the package.
    """
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ImportError) or not name:
        return None
    extras = _extras_with(name, _requirements())
    if not extras:
        return None
    extra = command if command in extras else extras[0]
    where = f"{PACKAGE} {command}".strip()
    remedy = f"Run pip install '{PACKAGE}[{extra}]'"
    return Problem(where, f"the package '{name}' is not installed", remedy)


@cache
def _requirements() -> tuple[str, ...]:
    try:
        return tuple(requires(PACKAGE) or ())
    except PackageNotFoundError:
        return ()


def _extras_with(module: str, requirements: Sequence[str]) -> list[str]:
    """Return the extras that install a module, the smallest first."""
    packages: dict[str, set[str]] = {}
    for match in filter(None, map(REQUIREMENT.match, requirements)):
        packages.setdefault(match["extra"], set()).add(_module(match["name"]))
    extras = [extra for extra in packages if module in packages[extra]]
    return sorted(set(extras) - FOR_DEVELOPERS, key=lambda extra: len(packages[extra]))


def _module(package: str) -> str:
    """Return the usual module name of a package."""
    return re.sub(r"[-.]", "_", package).lower()
