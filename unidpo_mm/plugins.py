"""Finds losses, model families and commands by the name of their file.

A file name is a registration: `losses/simpo.py` is the loss `simpo`, `model_adapters/text.py` the
family `text`. Nothing is listed by hand and adding one needs no reinstall. This is the only module
that imports by name; everything else imports what it uses.
"""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from .errors import Problem, RecipeError, UniDPOError

__all__ = [
    "PLUGIN_API",
    "callback_names",
    "families",
    "format_modules",
    "load_callback",
    "load_family",
    "load_loss",
    "loss_names",
    "suggestion",
    "summary",
    "user_commands",
]

PLUGIN_API = 1
"""Version of the contract; a package of adapters states the one that it was written for."""

ADAPTER_GROUP = "unidpo_mm.model_adapters"
COMMAND_GROUP = "unidpo_mm.commands"
CALLBACK_GROUP = "unidpo_mm.callbacks"
FORMAT_PACKAGE = "unidpo_mm.data.formats"
LOSS_PACKAGE = "unidpo_mm.losses"
NOT_YET = frozenset({"kto", "kto_pair"})
"""Losses that users of other frameworks ask for, and that need another kind of data."""
NOT_LOSSES = frozenset({"weights", "base"})
"""Modules of the loss package that hold shared functions and no loss."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns ", did you mean 'x'?" for the nearest known name, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def loss_names() -> tuple[str, ...]:
    """Returns the names of all losses, without importing any of them."""
    package = importlib.util.find_spec(LOSS_PACKAGE)
    paths = package.submodule_search_locations if package is not None else None
    return tuple(name for name in _module_names(paths or ()) if name not in NOT_LOSSES)


@cache
def load_loss(name: str) -> Any:
    """Returns the `Loss` of one file of `unidpo_mm/losses`.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    if name in NOT_YET:
        found = f"'{name}' learns from single answers labelled good or bad, which is not built yet"
        remedy = f"Choose one of {', '.join(loss_names())}"
        raise RecipeError(Problem("loss.name", found, remedy))
    if name not in loss_names():
        raise RecipeError(
            Problem(
                "loss.name",
                f"there is no loss '{name}'{suggestion(name, loss_names())}",
                f"Choose one of {', '.join(loss_names())}",
            )
        )
    loss = _exported(f"{LOSS_PACKAGE}.{name}", "LOSS")
    if loss.name != name:
        found = f"its file is {name}.py and its LOSS says name='{loss.name}'"
        raise RecipeError(Problem("loss.name", found, "Give both the same name"))
    return loss


def families() -> dict[str, str]:
    """Returns every model family as {name: module}, without importing the modules."""
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=ADAPTER_GROUP), key=lambda point: point.name):
        package = _adapter_package(point)
        for name in _module_names(package.__path__):
            if name in found:
                raise UniDPOError(
                    f"two packages bring a model family called '{name}': {found[name]} and "
                    f"{package.__name__}.{name}; uninstall one of them or rename its file"
                )
            found[name] = f"{package.__name__}.{name}"
    return found


@cache
def load_family(name: str) -> Any:
    """Returns the `AdapterFamily` of one adapter module.

    Raises:
        RecipeError: If no module has that name; lists what exists.
    """
    known = families()
    if name not in known:
        raise RecipeError(
            Problem(
                "model.adapter",
                f"there is no model family '{name}'{suggestion(name, known)}",
                f"Choose one of {', '.join(known)}",
            )
        )
    return _exported(known[name], "ADAPTER")


@cache
def format_modules() -> dict[str, ModuleType]:
    """Returns the modules of all data formats by name."""
    package = importlib.import_module(FORMAT_PACKAGE)
    return {
        name: importlib.import_module(f"{FORMAT_PACKAGE}.{name}")
        for name in _module_names(package.__path__)
    }


def callback_names() -> list[str]:
    """Return the names of the trainer callbacks that installed packages bring."""
    return sorted(point.name for point in entry_points(group=CALLBACK_GROUP))


def load_callback(name: str, settings: Any) -> Any:
    """Returns a trainer callback that an installed package brings, made of its settings.

    Raises:
        RecipeError: If no package brings one of that name; lists what exists.
    """
    known = {point.name: point for point in entry_points(group=CALLBACK_GROUP)}
    if name not in known:
        found = f"there is no callback '{name}'{suggestion(name, known)}"
        remedy = f"Choose one of {', '.join(known)}" if known else "Leave it out"
        raise RecipeError(Problem("run.callbacks", found, remedy))
    return known[name].load()(settings)


def user_commands() -> dict[str, EntryPoint]:
    """Returns the extra commands that installed packages bring, unloaded."""
    return {point.name: point for point in entry_points(group=COMMAND_GROUP)}


def summary(module: str) -> str:
    """Returns the first line of a plugin module's docstring."""
    text = importlib.import_module(module).__doc__ or ""
    return text.strip().splitlines()[0] if text.strip() else ""


def _module_names(paths: Iterable[str]) -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_"))


def _adapter_package(point: EntryPoint) -> ModuleType:
    package: ModuleType = point.load()
    version = getattr(package, "PLUGIN_API", None)
    if version != PLUGIN_API:
        raise UniDPOError(
            f"the adapter package '{point.value}' at {list(package.__path__)} states PLUGIN_API = "
            f"{version}, this unidpo-mm needs {PLUGIN_API}; if that is not the package you meant, "
            "another one of the same name is in its place"
        )
    return package


def _exported(module: str, name: str) -> Any:
    loaded = importlib.import_module(module)
    if not hasattr(loaded, name):
        raise UniDPOError(f"{loaded.__file__} must export {name}; see CONTRIBUTING.md")
    return getattr(loaded, name)
