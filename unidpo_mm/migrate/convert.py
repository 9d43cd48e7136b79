"""Recognises where a file comes from, carries its keys over and checks what came out."""

import copy
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import Problem, RecipeError
from ..plugins import suggestion
from ..recipe import Recipe
from ..recipe.problems import explain
from ..recipe.yaml_loader import Document, KeyPath, parse_yaml
from ..training.training_arguments import ARGUMENTS as TRAINING_ARGUMENTS
from ..training.training_arguments import refused_values
from .arguments import ARGUMENTS, complete_arguments, training_arguments
from .draft import Draft, Note, Origin
from .keys import UNSET, Key
from .origins import recognise
from .writer import write_recipe

__all__ = ["Migration", "migrate"]

NONE = re.compile(r"(:[ \t]+)None(?=[ \t]*(?:#[^\n]*)?$)", re.MULTILINE)
"""The released text settings write it for null."""
WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""Words that the other readers take for true and false; `eval_strategy: no` is another matter."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A recipe made from a file of another framework.

    Attributes:
        origin: Name of the framework.
        recipe: The recipe, YAML.
        notes: What is left out and what means something else, in the order of the file.
    """

    origin: str
    recipe: str
    notes: tuple[Note, ...]


def migrate(path: Path) -> Migration:
    """Return the recipe of a file of another framework.

    Args:
        path: A YAML or JSON file.

    Raises:
        RecipeError: If the file cannot be read or is of no known framework, or with everything in
            it that has no counterpart and decides what a run is.
    """
    document = _read(path)
    origin = recognise(document)
    draft = Draft(document, origin.owner, {**ARGUMENTS, **origin.keys}, path.parent)
    draft.values = {key: _word(key, value) for key, value in document.data.items()}
    _carry(draft)
    origin.complete(draft)
    complete_arguments(draft)
    _require(draft, origin)
    problems = [*draft.problems, *_check(draft)]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    lines = {key: number for number, key in enumerate(draft.values)}
    notes = sorted(dict.fromkeys(draft.notes), key=lambda note: lines.get(note.key, len(lines)))
    head = f"Written by unidpo-mm migrate from {path.name}, a file of {origin.title}."
    text = write_recipe(draft.recipe, draft.comments, head)
    return Migration(origin=origin.title, recipe=text, notes=tuple(notes))


def _read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        remedy = "Give the path of a configuration, a YAML or JSON file"
        raise RecipeError(Problem(str(path), f"it cannot be read: {reason}", remedy)) from error
    text = text.expandtabs() if path.suffix == ".json" else NONE.sub(r"\1null", text)
    document = parse_yaml(text, path.name)
    if document.problems:
        raise RecipeError(document.problems)
    if not isinstance(document.data, dict):
        remedy = "Give a file with the arguments of a run, key by key"
        raise RecipeError(Problem(path.name, "the file holds no keys", remedy))
    return document


def _word(key: str, value: Any) -> Any:
    is_word = isinstance(value, str) and value.lower() in WORDS and not key.endswith("_strategy")
    return WORDS[value.lower()] if is_word else value


def _carry(draft: Draft) -> None:
    """Carry over every key that stands for itself, then the defaults of those that do not."""
    for key, value in draft.values.items():
        entry = draft.keys.get(key)
        if entry is None:
            _pass_through(draft, key, value)
        elif not entry.ours:
            draft.leave_out(key, entry.text)
        elif not entry.joint:
            _put(draft, key, entry, value)
    for key, entry in draft.keys.items():
        if entry.default is not UNSET and not entry.joint and entry.ours not in draft.sources:
            value = entry.default
            draft.put(entry.ours, entry.convert(value) if entry.convert else value, key)


def _put(draft: Draft, key: str, entry: Key, value: Any) -> None:
    try:
        converted = entry.convert(value) if entry.convert else value
    except RecipeError as error:
        where = draft.document.where((key,))
        draft.problems += [replace(problem, where=where) for problem in error.problems]
        draft.carried.add(key)
        return
    others = draft.sources.get(entry.ours)
    if others and draft.get(entry.ours) != converted:
        text = f"it says something else than '{others[0]}', which means the same"
        draft.problem(key, text, "Leave one of the two out")
    comment = f"null, {draft.owner} default" if value is None and converted is not None else ""
    draft.put(entry.ours, converted, key, comment=comment)
    if entry.text and not entry.quiet:
        draft.note(key, entry.text)


def _pass_through(draft: Draft, key: str, value: Any) -> None:
    if refused_values({key: value}):
        draft.leave_out(key, TRAINING_ARGUMENTS[key].note)
        return
    if key in training_arguments():
        draft.put(f"train.{key}", value, key)
        return
    near = suggestion(key, [*draft.keys, *training_arguments()])
    draft.note(key, f"it is left out, since nothing is known of it{near}")


def _require(draft: Draft, origin: Origin) -> None:
    """Note what a run cannot do without, and puts stand-ins, so that the rest can be checked."""
    if not draft.get("model.name_or_path"):
        draft.problem("model_name_or_path", "the model is missing", "Name it there")
        draft.put("model.name_or_path", "?")
    if not draft.get("data.sources"):
        names = [key for key, entry in origin.keys.items() if entry.ours == "data.sources"]
        if not any(
            problem.where == draft.document.where((names[0],)) for problem in draft.problems
        ):
            draft.problem(names[0], "there is no data", f"Name it there, in {' or '.join(names)}")
        draft.put("data.sources", [{"path": "?"}])
    draft.note_empty()
    for key in draft.values:
        if key not in draft.accounted():  # nothing is dropped without a word
            draft.note(key, "it is not carried over")


def _check(draft: Draft) -> list[Problem]:
    """Return what the checks of a recipe find, with the places of the old file."""
    from ..training.recipe_checks import check_loss, check_train

    recipe, problems = _validated(draft)
    if recipe is not None:
        for problem in (*check_loss(recipe), *check_train(recipe)):
            problems.append(replace(problem, where=draft.where(problem.where.split("."))))
    return problems


def _validated(draft: Draft) -> tuple[Recipe | None, list[Problem]]:
    """Return the typed recipe, without what is wrong, and what that is."""
    data = copy.deepcopy(draft.recipe)
    problems: list[Problem] = []
    for _ in range(2):
        try:
            return Recipe.model_validate(data), problems
        except ValidationError as error:
            for path, problem in explain(error, data):
                problems.append(replace(problem, where=draft.where([str(part) for part in path])))
                _remove(data, path)
    return None, problems


def _remove(data: Any, path: KeyPath) -> None:
    for part in path[:-1]:
        data = data[part]
    if isinstance(data, dict):
        data.pop(path[-1], None)
