"""Finds losses, model families and commands by the name of their file.

A file name is a registration: `losses/simpo.py` is the loss `simpo`, `model_adapters/text.py` the
family `text`. Nothing is listed by hand and adding one needs no reinstall. This is the only module
that imports by name; everything else imports what it uses.
"""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import Problem, RecipeError, UniDPOError

__all__ = [
    "PLUGIN_API",
    "callback_names",
    "families",
    "format_modules",
    "is_loss_path",
    "load_callback",
    "load_family",
    "load_loss",
    "loss_modules",
    "loss_names",
    "register_loss",
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
LOSS_GROUP = "unidpo_mm.losses"
LOSS_ATTRIBUTES = (
    "name config unit compute terms needs_reference needs_scores batch_dependent memory"
).split()
"""What every loss states, see `unidpo_mm.losses.base.Loss`."""
NOT_YET = frozenset({"kto", "kto_pair"})
"""Losses that users of other frameworks ask for, and that need another kind of data."""
NOT_LOSSES = frozenset({"weights", "base"})
"""Modules of the loss package that hold shared functions and no loss."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the nearest known name, else an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def loss_names() -> tuple[str, ...]:
    """Return the names of all losses, without importing any of them."""
    return tuple(loss_modules())


def loss_modules() -> dict[str, str]:
    """Return every loss as {name: module}: shipped ones, then those of installed packages.

    Raises:
        UniDPOError: If two packages bring a loss of the same name.
    """
    package = importlib.util.find_spec(LOSS_PACKAGE)
    paths = package.submodule_search_locations if package is not None else None
    modules = {
        name: f"{LOSS_PACKAGE}.{name}"
        for name in _module_names(paths or ())
        if name not in NOT_LOSSES
    }
    for point in sorted(entry_points(group=LOSS_GROUP), key=lambda point: point.name):
        if point.name in modules:
            raise UniDPOError(
                f"two packages bring a loss called '{point.name}': {modules[point.name]} and "
                f"{point.value}; uninstall one of them or rename its entry point"
            )
        modules[point.name] = point.module
    return modules


def is_loss_path(name: str) -> bool:
    """Return whether the name of a loss is the path of a Python file."""
    return name.endswith(".py") or "/" in name or os.sep in name


def register_loss(loss: Any) -> str:
    """Make a `Loss` object known by its name in this process and return the name.

    Raises:
        RecipeError: If it is not a loss, or a shipped loss has its name.
    """
    name = str(getattr(loss, "name", ""))
    _check_loss_object("loss_type", f"{type(loss).__name__} object", loss)
    if name in loss_modules():
        text = f"'{name}' is the name of another loss"
        raise RecipeError(Problem("loss_type", text, "Change LOSS.name"))
    _REGISTERED[name] = loss
    return name


_REGISTERED: dict[str, Any] = {}
"""Losses that were passed as objects, by name."""


def load_loss(name: str) -> Any:
    """Return a `Loss` by name: a shipped one, one of an installed package, a file, or an object.

    Args:
        name: Name of a loss, or the path of a Python file that exports `LOSS`.

    Raises:
        RecipeError: If there is no such loss; lists what exists.
    """
    return _REGISTERED[name] if name in _REGISTERED else _find_loss(name)


@cache
def _find_loss(name: str) -> Any:
    if name in NOT_YET:
        text = f"'{name}' learns from single responses labelled good or bad, which is not supported"
        raise RecipeError(Problem("loss.name", text, f"Choose one of {', '.join(loss_names())}"))
    if is_loss_path(name):
        return _loss_of_file(Path(name).expanduser())
    modules = loss_modules()
    if name not in modules:
        raise RecipeError(
            Problem(
                "loss.name",
                f"there is no loss '{name}'{suggestion(name, modules)}",
                f"Choose one of {', '.join(modules)}, or use the path of a Python file",
            )
        )
    if modules[name].startswith(f"{LOSS_PACKAGE}."):
        loss = _exported(modules[name], "LOSS")
    else:
        loss = _loss_of_package(name)
    if loss.name != name:
        text = f"it is registered as '{name}' and its LOSS says name='{loss.name}'"
        raise RecipeError(Problem("loss.name", text, "Use the same name in both places"))
    return loss


def _loss_of_package(name: str) -> Any:
    (point,) = (point for point in entry_points(group=LOSS_GROUP) if point.name == name)
    try:
        loaded = point.load()
    except Exception as error:  # code of another package
        text = f"the loss '{name}' cannot be imported from {point.value}: {_located(error)}"
        raise RecipeError(
            Problem("loss.name", text, "Correct or reinstall that package")
        ) from error
    loss = getattr(loaded, "LOSS", None) if isinstance(loaded, ModuleType) else loaded
    _check_loss_object("loss.name", point.value, loss)
    return loss


def _loss_of_file(path: Path) -> Any:
    """Import a Python file and return its `LOSS`."""
    if not path.is_file():
        state = "is a directory" if path.is_dir() else "does not exist"
        remedy = "Use a path relative to the recipe, an absolute path, or the name of a loss"
        raise RecipeError(Problem("loss.name", f"the file '{path}' {state}", remedy))
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module_name = f"unidpo_mm_loss_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(Problem("loss.name", f"'{path}' is not a Python file", "Use a .py file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # code of the user
        del sys.modules[module_name]
        text = f"'{path}' cannot be imported: {_located(error)}"
        raise RecipeError(Problem("loss.name", text, "Correct the file")) from error
    loss = getattr(module, "LOSS", None)
    _check_loss_object("loss.name", str(path), loss)
    return loss


def _check_loss_object(where: str, origin: str, loss: Any) -> None:
    """Refuse what is not a `Loss`; the class itself is above this layer and imports torch."""
    missing = [name for name in LOSS_ATTRIBUTES if not hasattr(loss, name)]
    if loss is None or missing or not dataclasses.is_dataclass(loss.config):
        text = f"{origin} has no LOSS that is an unidpo_mm.authoring.Loss"
        raise RecipeError(Problem(where, text, "Define LOSS = Loss(...), see docs/losses.md"))
    if not (isinstance(loss.name, str) and loss.name):
        raise RecipeError(Problem(where, f"{origin}: LOSS.name is empty", "Set LOSS.name"))


def _located(error: BaseException) -> str:
    """Return an exception as one line, with the line of code that raised it."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    line = f"line {frames[-1].lineno} of {Path(frames[-1].filename).name}: " if frames else ""
    text = " ".join(str(error).split())
    return f"{line}{type(error).__name__}: {text}".rstrip(": ")


def families() -> dict[str, str]:
    """Return every model family as {name: module}, without importing the modules."""
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
    """Return the `AdapterFamily` of one adapter module.

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
    """Return the modules of all data formats by name."""
    package = importlib.import_module(FORMAT_PACKAGE)
    return {
        name: importlib.import_module(f"{FORMAT_PACKAGE}.{name}")
        for name in _module_names(package.__path__)
    }


def callback_names() -> list[str]:
    """Return the names of the trainer callbacks that installed packages bring."""
    return sorted(point.name for point in entry_points(group=CALLBACK_GROUP))


def load_callback(name: str, settings: Any) -> Any:
    """Return a trainer callback that an installed package brings, made of its settings.

    Raises:
        RecipeError: If no package brings one of that name; lists what exists.
    """
    known = {point.name: point for point in entry_points(group=CALLBACK_GROUP)}
    if name not in known:
        problem = f"there is no callback '{name}'{suggestion(name, known)}"
        remedy = f"Choose one of {', '.join(known)}" if known else "Leave it out"
        raise RecipeError(Problem("run.callbacks", problem, remedy))
    return known[name].load()(settings)


def user_commands() -> dict[str, EntryPoint]:
    """Return the extra commands that installed packages bring, unloaded."""
    return {point.name: point for point in entry_points(group=COMMAND_GROUP)}


def summary(module: str) -> str:
    """Return the first line of a plugin module's docstring."""
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
