"""Reads a recipe: file, overrides, sections, and the checks of those who know more."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import Problem, RecipeError
from .loss_switch import drop_other_parameters, loss_name
from .numbers import refuse_numbers
from .overrides import apply_overrides
from .paths import resolve_paths
from .problems import explain
from .sections import Recipe
from .yaml_loader import Document, KeyPath, key_name, parse_yaml

__all__ = ["Check", "load_recipe"]

Check = Callable[[Recipe], list[Problem]]
"""A check of a typed recipe; the `where` of its problems is a key path, ``loss.beta``."""

STAND_INS: dict[str, Any] = {
    "model": {"name_or_path": "?"},
    "data": {"sources": [{"path": "?"}]},
    "name_or_path": "?",
    "sources": [{"path": "?"}],
    "path": "?",
}
"""Values for missing keys, so that the checks of the other keys can run all the same."""


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, checks: Sequence[Check] = ()
) -> Recipe:
    """Return the recipe of a YAML file.

    Relative paths of models, data and images are looked up beside the recipe first, then in the
    current directory; what is found becomes absolute, what is not found stays as written.

    Args:
        path: The file.
        overrides: ``section.key=value``, see `overrides`.
        checks: Called with the typed recipe, see `unidpo_mm.training.recipe_checks`.

    Raises:
        RecipeError: With every problem of file, overrides, sections and checks at once.
    """
    path = Path(path)
    document = parse_yaml(_read(path), path.name)
    readable = document.data is not None or not document.problems
    before = loss_name(document)
    apply_overrides(document, overrides)
    if not readable:  # after an error of syntax nothing is known about the values
        raise RecipeError(document.problems)
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        problem = "the file holds no sections"
        raise RecipeError(Problem(document.where(()), problem, "Start with 'model:' and 'data:'"))
    drop_other_parameters(document, before, path.parent)
    recipe, wrong = _validate(document)
    if recipe is not None:
        recipe = resolve_paths(recipe, path.parent)
        document.problems.extend(_checked(recipe, checks, document, wrong))
    if recipe is None or document.problems:
        raise RecipeError(document.problems)
    return recipe


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        remedy = "Give the path of a recipe, a YAML file"
        raise RecipeError(Problem(str(path), f"it cannot be read: {reason}", remedy)) from error


def _validate(document: Document) -> tuple[Recipe | None, set[KeyPath]]:
    """Return the recipe, repaired where it is wrong, and the paths that were wrong.

    The repaired recipe is never used for a run: it lets the checks find the other problems.
    """
    data, wrong = document.data, set[KeyPath]()
    for path in refuse_numbers(document):
        wrong.add(_key_of(path))
        data = copy.deepcopy(data)
        _repair(data, _key_of(path))
    for _ in range(4):  # a repair may uncover one more level
        try:
            return Recipe.model_validate(data), wrong
        except ValidationError as error:
            data = copy.deepcopy(data)
            for path, problem in explain(error, data):
                if not any(path[: len(known)] == known for known in wrong):
                    document.problems.append(replace(problem, where=document.where(path)))
                    wrong.add(path)
                _repair(data, path)
    return None, wrong


def _key_of(path: KeyPath) -> KeyPath:
    """Return the path of the innermost key: an item of a list of numbers cannot be removed."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _repair(data: Any, path: KeyPath) -> None:
    """Remove what is wrong, or puts a stand-in where something required is missing."""
    target = data
    for part in path[:-1]:
        target = target[part]
    if path and (isinstance(target, list) or path[-1] in STAND_INS):
        target[path[-1]] = STAND_INS.get(str(path[-1]), STAND_INS["path"])
    elif path:
        target.pop(path[-1], None)


def _checked(
    recipe: Recipe, checks: Sequence[Check], document: Document, wrong: set[KeyPath]
) -> Iterable[Problem]:
    repaired = [f"{key_name(path)}." for path in wrong]
    for check in checks:
        for problem in check(recipe):
            if not any(f"{problem.where}.".startswith(known) for known in repaired):
                yield replace(problem, where=_place(document, problem.where))


def _place(document: Document, where: str) -> str:
    """Add file and line to a `where` that is a key path; leaves any other as it is."""
    parts = where.split(".")
    if parts[0] not in Recipe.model_fields:
        return where
    return document.where(tuple(int(part) if part.isdigit() else part for part in parts))
