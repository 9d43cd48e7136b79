"""Convert the configuration of another framework to a recipe: detect it, convert keys, check."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.dump import format_recipe
from ..config.load import valid_part
from ..config.recipe import Recipe
from ..config.training_arguments import ARGUMENTS, refused_values, training_arguments
from ..config.yaml_loader import Document, parse_yaml, read_text
from ..errors import Problem, RecipeError
from ..plugins import suggestion
from . import llama_factory, official, trainer_arguments, trl
from .conversion import Conversion, Framework, Note
from .table import UNSET, Key

__all__ = ["FRAMEWORKS", "Migration", "migrate"]

FRAMEWORKS: tuple[Framework, ...] = (llama_factory.FRAMEWORK, official.FRAMEWORK, trl.FRAMEWORK)

NONE = re.compile(r"(:[ \t]+)None(?=[ \t]*(?:#[^\n]*)?$)", re.MULTILINE)
"""`None` as a value: the released settings of the official text code use it for null."""
WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""Words that YAML 1.1 reads as booleans; in keys such as `eval_strategy`, ``no`` is text."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A recipe made from the configuration of another framework.

    Attributes:
        framework: Name of the framework.
        recipe: The recipe as YAML.
        notes: Keys that are not migrated or differ in meaning, in the order of the file.
    """

    framework: str
    recipe: str
    notes: tuple[Note, ...]


def migrate(path: Path) -> Migration:
    """Return the recipe for a configuration of another framework.

    Args:
        path: A YAML or JSON file.

    Raises:
        RecipeError: If the file cannot be read, its framework is unknown, or a key that a run
            depends on is not supported.
    """
    document = _read(path)
    framework = recognize(document)
    conversion = Conversion(
        document=document,
        framework=framework.title,
        keys={**trainer_arguments.KEYS, **framework.keys},
        directory=path.parent,
        values={key: _yes_no_to_bool(key, value) for key, value in document.data.items()},
    )
    _convert_single_keys(conversion)
    for convert in (*framework.converters.values(), *trainer_arguments.CONVERTERS.values()):
        convert(conversion)
    _require_model_and_data(conversion, framework)
    conversion.note_remaining()
    problems = [*conversion.problems, *_check(conversion)]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    order = {key: number for number, key in enumerate(conversion.values)}
    notes = dict.fromkeys(conversion.notes)
    head = f"Written by unidpo-mm migrate from {path.name}, a configuration of {framework.title}."
    return Migration(
        framework=framework.title,
        recipe=format_recipe(conversion.recipe, conversion.comments, head),
        notes=tuple(sorted(notes, key=lambda note: order.get(note.key, len(order)))),
    )


def _read(path: Path) -> Document:
    text = read_text(path, "Use the path of a configuration, a YAML or JSON file")
    text = text.expandtabs() if path.suffix == ".json" else NONE.sub(r"\1null", text)
    document = parse_yaml(text, path.name)
    if document.problems:
        raise RecipeError(document.problems)
    if not isinstance(document.data, dict):
        remedy = "Use a file with the arguments of a run, one key per argument"
        raise RecipeError(Problem(path.name, "the file contains no keys", remedy))
    return document


def _yes_no_to_bool(key: str, value: Any) -> Any:
    is_word = isinstance(value, str) and value.lower() in WORDS and not key.endswith("_strategy")
    return WORDS[value.lower()] if is_word else value


def recognize(document: Document) -> Framework:
    """Return the framework with the most keys that no other framework has.

    Raises:
        RecipeError: If there is none, or more than one.
    """
    data, name = document.data, document.name
    if {"model", "data"} <= data.keys():
        problem = "this file is already a recipe"
        raise RecipeError(Problem(name, problem, f"Run unidpo-mm train {name}"))
    keys = {item.title: [key for key in data if _is_distinctive(key, item)] for item in FRAMEWORKS}
    first, second, *_ = sorted(FRAMEWORKS, key=lambda item: -len(keys[item.title]))
    if len(keys[first.title]) > len(keys[second.title]):
        return first
    problem = f"its keys do not belong to a supported framework: {', '.join(data) or '(none)'}"
    if keys[first.title]:
        parts = "; ".join(
            f"{item.title}: {', '.join(keys[item.title])}" for item in (first, second)
        )
        problem = f"it has equally many keys of two frameworks ({parts})"
    hints = "; ".join(f"{item.title}: {item.hint}" for item in FRAMEWORKS)
    remedy = f"Use a file of one of these frameworks ({hints})"
    raise RecipeError(Problem(name, problem, remedy))


def _is_distinctive(key: str, framework: Framework) -> bool:
    """Return whether a key belongs to one framework only, and not to the Trainer."""
    if key in trainer_arguments.KEYS or key not in framework.keys:
        return False
    if framework.keys[key].target == f"train.{key}":
        return False
    return not any(key in other.keys for other in FRAMEWORKS if other is not framework)


def _convert_single_keys(conversion: Conversion) -> None:
    """Convert each key that does not depend on others, then set defaults of missing keys."""
    for key, value in conversion.values.items():
        entry = conversion.keys.get(key)
        if entry is None:
            _convert_argument(conversion, key, value)
        elif not entry.target:
            conversion.skip(key, entry.note)
        elif not entry.group:
            _convert_key(conversion, key, entry, value)
    for key, entry in conversion.keys.items():
        if entry.default is UNSET or entry.group or entry.target in conversion.sources:
            continue
        conversion.set(entry.target, entry.translate(entry.default), key)


def _convert_key(conversion: Conversion, key: str, entry: Key, value: Any) -> None:
    try:
        converted = entry.translate(value)
        if entry.convert:
            converted = trainer_arguments.CONVERT[entry.convert](converted)
    except RecipeError as error:
        where = conversion.document.where((key,))
        conversion.problems += [replace(problem, where=where) for problem in error.problems]
        conversion.used_keys.add(key)
        return
    others = conversion.sources.get(entry.target)
    if others and conversion.get(entry.target) != converted:
        problem = f"contradicts '{others[0]}', which has the same meaning"
        conversion.problem(key, problem, "Remove one of them")
    is_default = value is None and converted is not None
    comment = f"null, {conversion.framework}'s default" if is_default else ""
    conversion.set(entry.target, converted, key, comment=comment)
    if entry.note:
        conversion.note(key)


def _convert_argument(conversion: Conversion, key: str, value: Any) -> None:
    """Convert a key that is in no table; an argument of the Trainer keeps its name."""
    if refused_values({key: value}):
        conversion.skip(key, ARGUMENTS[key].note)
    elif key in training_arguments():
        conversion.set(f"train.{key}", value, key)
    else:
        near = suggestion(key, [*conversion.keys, *training_arguments()])
        conversion.note(key, f"unknown key, so it is not migrated{near}")


def _require_model_and_data(conversion: Conversion, framework: Framework) -> None:
    """Add a problem for a missing model or missing data, and a placeholder to check the rest."""
    if not conversion.get("model.name_or_path"):
        conversion.problem("model_name_or_path", "the model is missing", "Add it")
        conversion.set("model.name_or_path", "?")
    if not conversion.get("data.sources"):
        keys = [key for key, entry in framework.keys.items() if entry.target == "data.sources"]
        places = {conversion.document.where((key,)) for key in keys}
        if all(problem.where not in places for problem in conversion.problems):
            remedy = f"Add it as {' or '.join(keys)}"
            conversion.problem(keys[0], "the training data is missing", remedy)
        conversion.set("data.sources", [{"path": "?"}])


def _check(conversion: Conversion) -> list[Problem]:
    """Check the recipe; return the problems with their places in the original file."""
    from ..config.checks.recipe import check_loss, check_train

    recipe, invalid = valid_part(conversion.recipe, set(), Recipe)
    problems = [(".".join(map(str, path)), problem) for path, problem in invalid]
    if recipe is not None:
        checked = (*check_loss(recipe), *check_train(recipe))
        problems += [(problem.where, problem) for problem in checked]
    return [replace(problem, where=conversion.locate(key)) for key, problem in problems]
