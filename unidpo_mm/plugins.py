"""Find plugins by name: losses, model families, formats, callbacks, observers and commands.

A plugin is an object that a module exports under a fixed name, such as `LOSS`. For every kind there
are the same three ways to provide one:

- a file in the package of that kind: `losses/simpo.py` is the loss `simpo`;
- an entry point of an installed package;
- a path to a user's file, `./my_loss.py`, wherever a name is accepted.

Nothing is listed by hand, and adding a file needs no reinstall. This is the only module that
imports by name. Other packages define further kinds with `Kind`.
"""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import DataError, Problem, RecipeError, UniDPOError
from .extras import missing_package
from .plugin_errors import MODULE_PREFIX, located, wrong_fields

__all__ = [
    "CALLBACKS",
    "FAMILIES",
    "FORMATS",
    "LOSSES",
    "OBSERVERS",
    "PLUGIN_API",
    "QUESTIONS",
    "SCORERS",
    "Kind",
    "is_path",
    "load",
    "load_family",
    "load_loss",
    "plugin_names",
    "register",
    "suggestion",
    "summary",
    "unknown_name",
    "user_commands",
]

PLUGIN_API = 1
"""Version of the contract; a package of plugins declares the version it was written for."""

COMMAND_GROUP = "unidpo_mm.commands"


@dataclass(frozen=True, eq=False, kw_only=True)
class Kind:
    """A kind of plugin.

    Attributes:
        noun: Its name in messages, for example ``loss``.
        where: The setting that names a plugin, for messages.
        export: The name under which a module exports the plugin.
        attributes: Attributes that the object must have; dots lead to attributes of attributes.
        expected: What the object must be, for messages.
        guide: The page that describes how to write one.
        package: The package whose public modules are plugins; `None` if there is none.
        helpers: Public modules of that package that are not plugins.
        group: The group of entry points. An entry point leads to a plugin, to its module, or to a
            package whose public modules are plugins.
        error: The exception to raise.
        base: What relative paths are relative to, for messages.
    """

    noun: str
    where: str
    export: str
    attributes: tuple[str, ...]
    expected: str
    guide: str = "docs/extend.md"
    package: str | None = None
    helpers: frozenset[str] = frozenset()
    group: str
    error: type[UniDPOError] = RecipeError
    base: str = "the recipe"


LOSSES = Kind(
    noun="loss",
    where="loss.name",
    export="LOSS",
    attributes=tuple(
        "name config.__dataclass_fields__ unit compute terms needs_reference needs_scores "
        "needs_tokens needs_labels needs_mismatched batch_dependent initial_state".split()
    ),
    expected="an unidpo_mm.authoring.Loss",
    guide="docs/losses.md",
    package="unidpo_mm.losses",
    helpers=frozenset({"base", "image_preference", "running", "weights"}),
    group="unidpo_mm.losses",
)
FAMILIES = Kind(
    noun="model family",
    where="model.adapter",
    export="ADAPTER",
    attributes=("name", "model_types", "serves", "auto_class", "parts", "default_freeze", "create"),
    expected="an unidpo_mm.authoring.AdapterFamily",
    guide="docs/families.md",
    group="unidpo_mm.model_adapters",
)
FORMATS = Kind(
    noun="format",
    where="data.sources.format",
    export="FORMAT",
    attributes=("name", "required", "parse"),
    expected="an unidpo_mm.authoring.Format",
    guide="docs/formats.md",
    package="unidpo_mm.data.formats",
    group="unidpo_mm.formats",
    error=DataError,
)
CALLBACKS = Kind(
    noun="callback",
    where="run.callbacks",
    export="CALLBACK",
    attributes=("__call__",),
    expected="a function of its settings that returns a transformers.TrainerCallback",
    guide="docs/observers.md",
    group="unidpo_mm.callbacks",
)
OBSERVERS = Kind(
    noun="observer",
    where="run.observers",
    export="OBSERVER",
    attributes=("__call__",),
    expected="a function of its settings that returns an unidpo_mm.training.observers.Observer",
    guide="docs/observers.md",
    group="unidpo_mm.observers",
)


SCORERS = Kind(
    noun="scorer",
    where="score",
    export="SCORER",
    attributes=("unit", "needs", "scale", "sees_images", "version", "start", "fingerprint"),
    expected="a class derived from unidpo_mm.authoring.Scorer",
    guide="docs/making_data.md",
    package="unidpo_mm.pipelines.scorers",
    group="unidpo_mm.scorers",
)


QUESTIONS = Kind(
    noun="reader of questions to keep out",
    where="prompts.keep_out",
    export="QUESTIONS",
    attributes=("__call__",),
    expected="a function of names, data, images and text that returns a LeakIndex",
    group="unidpo_mm.questions",
)


def plugin_names(kind: Kind) -> dict[str, str]:
    """Return the modules of all plugins of a kind by name, without importing them.

    Those of the kind's own package come first, then those of installed packages. A value may also
    be ``module:attribute``.

    Raises:
        UniDPOError: If two packages provide a plugin of the same name.
    """
    return dict(_plugin_names(kind, entry_points))


@cache
def _plugin_names(kind: Kind, installed: Callable[..., Iterable[EntryPoint]]) -> dict[str, str]:
    """Return them from the entry points that `installed` finds.

    It reads the metadata of all installed packages, and the formats are looked up for every row.
    """
    modules: dict[str, str] = {}
    if kind.package is not None:
        modules = {
            name: module
            for name, module in _public_modules(kind.package).items()
            if name not in kind.helpers
        }
    for point in sorted(installed(group=kind.group), key=lambda point: point.name):
        for name, module in _modules_of(point).items():
            if name in modules:
                raise UniDPOError(
                    f"two packages provide a {kind.noun} called '{name}': {modules[name]} and "
                    f"{module}; uninstall one of them or rename its file or entry point"
                )
            modules[name] = module
    return modules


def is_path(name: str) -> bool:
    """Return whether the name of a plugin is the path of a Python file."""
    return name.endswith(".py") or "/" in name or os.sep in name


def load(kind: Kind, name: str, where: str | None = None) -> Any:
    """Return a plugin.

    Args:
        kind: Its kind.
        name: Its name, or the path of a Python file that exports one.
        where: The setting, for messages; `None` for `kind.where`.

    Raises:
        UniDPOError: Of the class `kind.error`, if there is no such plugin or it is not valid.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]
    if is_path(name):
        name = str(Path(name).expanduser().absolute())
    return _load(kind, name, where or kind.where)


def load_loss(name: str) -> Any:
    """Return a `Loss` by name or path, see `load`."""
    return load(LOSSES, name)


def load_family(name: str) -> Any:
    """Return an `AdapterFamily` by name or path, see `load`."""
    return load(FAMILIES, name)


def register(kind: Kind, plugin: Any, where: str) -> str:
    """Make an object available by its name in this process; return the name.

    Args:
        kind: Its kind.
        plugin: The object.
        where: The argument that it was passed in, for messages.

    Raises:
        UniDPOError: Of the class `kind.error`, if it is not valid or its name is taken.
    """
    _check(kind, plugin, f"the {type(plugin).__name__} object", where)
    name = str(plugin.name)
    if name in plugin_names(kind):
        problem = f"'{name}' is the name of another {kind.noun}"
        raise kind.error(Problem(where, problem, f"Change {kind.export}.name"))
    _registered[kind, name] = plugin
    return name


_registered: dict[tuple[Kind, str], Any] = {}


def unknown_name(kind: Kind, name: str, where: str, choices: Iterable[str]) -> Problem:
    """Return the problem of an unknown name, which suggests the most similar choice."""
    choices = list(choices)
    problem = f"unknown {kind.noun} '{name}'{suggestion(name, choices)}"
    listed = f"Choose one of {', '.join(choices)}, or" if choices else "Use"
    return Problem(where, problem, f"{listed} the path of a Python file")


def suggestion(name: str, choices: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the most similar choice, or an empty string."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def summary(module: str) -> str:
    """Return the first line of a module's docstring."""
    text = importlib.import_module(module).__doc__ or ""
    return text.strip().splitlines()[0] if text.strip() else ""


def user_commands() -> dict[str, EntryPoint]:
    """Return the additional commands of installed packages, not imported."""
    return {point.name: point for point in entry_points(group=COMMAND_GROUP)}


def _public_modules(package: str) -> dict[str, str]:
    """Return the modules of a package by name; those with an underscore are its helpers."""
    spec = importlib.util.find_spec(package)
    paths = spec.submodule_search_locations if spec is not None else None
    modules = sorted(module.name for module in pkgutil.iter_modules(paths or ()))
    return {name: f"{package}.{name}" for name in modules if not name.startswith("_")}


def _modules_of(point: EntryPoint) -> dict[str, str]:
    """Return the plugins of an entry point by name.

    Raises:
        UniDPOError: If it is a package that was written for another version of the contract.
    """
    try:
        spec = None if point.attr else importlib.util.find_spec(point.module)
    except ImportError:  # loading it reports this
        spec = None
    if spec is None or spec.submodule_search_locations is None:
        return {point.name: point.value}
    package = importlib.import_module(point.module)
    version = getattr(package, "PLUGIN_API", None)
    if version != PLUGIN_API:
        raise UniDPOError(
            f"the package '{point.value}' at {list(package.__path__)} has PLUGIN_API = {version}, "
            f"and this version of unidpo-mm needs {PLUGIN_API}; if that is not the package you "
            "expected, another package of the same name takes its place"
        )
    return _public_modules(point.module)


@cache
def _load(kind: Kind, name: str, where: str) -> Any:
    if is_path(name):
        plugin = getattr(_import_file(kind, Path(name), where), kind.export, None)
        _check(kind, plugin, name, where)
        return plugin
    modules = plugin_names(kind)
    if name not in modules:
        raise kind.error(unknown_name(kind, name, where, modules))
    try:
        plugin = EntryPoint(name, modules[name], kind.group).load()
    except Exception as error:  # code of another package
        if missing := missing_package(error):
            raise kind.error(dataclasses.replace(missing, where=where)) from error
        problem = f"the {kind.noun} '{name}' cannot be imported from {modules[name]}"
        problem = f"{problem}: {located(error)}"
        raise kind.error(Problem(where, problem, "Correct or reinstall its package")) from error
    if isinstance(plugin, ModuleType):
        plugin = getattr(plugin, kind.export, None)
    _check(kind, plugin, modules[name], where)
    inner = getattr(plugin, "name", name)
    if inner != name:
        problem = f"'{name}' is the name of the module or entry point, and {kind.export}.name is "
        problem += f"'{inner}'"
        raise kind.error(Problem(where, problem, "Use the same name in both places"))
    return plugin


def _import_file(kind: Kind, path: Path, where: str) -> ModuleType:
    """Return the module of a Python file; a file that holds several plugins is run once."""
    if not path.is_file():
        state = "is a directory" if path.is_dir() else "does not exist"
        remedy = (
            f"Use a path relative to {kind.base}, an absolute path, or the name of a {kind.noun}"
        )
        raise kind.error(Problem(where, f"the file '{path}' {state}", remedy))
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module_name = f"{MODULE_PREFIX}{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise kind.error(Problem(where, f"'{path}' is not a Python file", "Use a .py file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # code of the user
        del sys.modules[module_name]
        problem = f"'{path}' cannot be imported: {located(error)}"
        raise kind.error(Problem(where, problem, "Correct the file")) from error
    return module


def _check(kind: Kind, plugin: Any, origin: str, where: str) -> None:
    """Raise an error unless an object has all attributes of its kind.

    Its class is not checked, because this module must not import the layers that define it.
    """

    def has(attribute: str) -> bool:
        try:
            attrgetter(attribute)(plugin)
        except AttributeError:
            return False
        return True

    missing = [name.partition(".__")[0] for name in kind.attributes if not has(name)]
    if plugin is None or missing:
        detail = "" if plugin is None else f" (it lacks {', '.join(missing)})"
        problem = f"{origin} has no {kind.export} that is {kind.expected}{detail}"
        raise kind.error(Problem(where, problem, f"Define {kind.export}, see {kind.guide}"))
    wrong = wrong_fields(plugin)
    if wrong:
        raise kind.error(
            Problem(f"{where}: {origin}", f"{kind.export}.{name} {text}", f"See {kind.guide}")
            for name, text in wrong.items()
        )
    if "name" in kind.attributes and not (isinstance(plugin.name, str) and plugin.name):
        problem = f"{origin}: {kind.export}.name is empty"
        raise kind.error(Problem(where, problem, f"Set {kind.export}.name"))
