"""Load a recipe: read the file, apply overrides, validate the sections and run further checks."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..errors import Problem, RecipeError
from .aliases import rename_former_keys
from .loss_switch import drop_other_parameters, loss_name
from .numbers import unusable_numbers
from .overrides import apply_overrides
from .paths import resolve_paths
from .problems import explain
from .recipe import Recipe
from .sections import Section
from .yaml_loader import Document, KeyPath, key_name, parse_yaml, read_text

__all__ = ["Check", "check_valid", "load_recipe", "read_document", "valid_part"]

Root = TypeVar("Root", bound=Section)
Check = Callable[[Recipe], list[Problem]]
"""A check of a validated recipe; the `where` of its problems is a key path, ``loss.beta``."""

PLACEHOLDERS: dict[str, Any] = {
    "model": {"name_or_path": "?"},
    "data": {"sources": [{"path": "?"}]},
    "prompts": {"sources": [{"path": "?"}]},
    "output": "?",
    "scorer": "?",
    "urls": ["?"],
    "name_or_path": "?",
    "sources": [{"path": "?"}],
    "path": "?",
}
"""Values for missing or invalid required keys, so that the other keys can still be checked."""


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, checks: Sequence[Check] = ()
) -> Recipe:
    """Return the recipe of a YAML file.

    Relative paths of models, data and images are looked up in the directory of the recipe, then in
    the current directory. Paths that exist become absolute, all others stay as they are.

    Args:
        path: The file.
        overrides: ``section.key=value``, see `overrides`.
        checks: Functions called with the validated recipe, see
            `unidpo_mm.config.checks.recipe`.

    Raises:
        RecipeError: With all problems of the file, the overrides, the sections and the checks.
    """
    path = Path(path)
    document, file_loss = read_document(path, overrides, start="'model:' and 'data:'")
    rename_former_keys(document)
    drop_other_parameters(document, file_loss, path.parent)
    return check_valid(document, Recipe, lambda recipe: resolve_paths(recipe, path.parent), checks)


def read_document(
    path: Path, overrides: Sequence[str], *, start: str
) -> tuple[Document, str | None]:
    """Return the sections of a file with overrides, and the loss that the file itself names.

    Args:
        path: The file.
        overrides: ``section.key=value``, see `overrides`.
        start: The first sections of such a file, for messages.

    Raises:
        RecipeError: If the file cannot be read or is not a mapping.
    """
    text = read_text(path, "Use the path of a recipe, a YAML file")
    document = parse_yaml(text, path.name)
    readable = document.data is not None or not document.problems
    file_loss = loss_name(document)
    apply_overrides(document, overrides)
    if not readable:  # the values are unknown after a syntax error
        raise RecipeError(document.problems)
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        text = "the file is not a mapping with sections"
        raise RecipeError(Problem(document.where(()), text, f"Start with {start}"))
    return document, file_loss


def check_valid(
    document: Document,
    root: type[Root],
    resolve: Callable[[Root], Root],
    checks: Sequence[Callable[[Root], list[Problem]]],
) -> Root:
    """Return the validated sections of a document.

    Args:
        document: The document.
        root: The class of all sections.
        resolve: Makes relative paths absolute.
        checks: Further checks; the `where` of their problems is a key path.

    Raises:
        RecipeError: With all problems of the document, its sections and the checks.
    """
    numbers = list(unusable_numbers(document.data))
    invalid = {_innermost_key(key) for key, _ in numbers}
    recipe, problems = valid_part(document.data, invalid, root)
    for key, problem in (*numbers, *problems):
        document.problems.append(replace(problem, where=document.where(key)))
    if recipe is not None:
        recipe = resolve(recipe)
        document.problems.extend(_check(recipe, checks, document, invalid))
    if recipe is None or document.problems:
        raise RecipeError(document.problems)
    return recipe


def valid_part(
    data: Any, invalid: set[KeyPath], root: type[Root]
) -> tuple[Root | None, list[tuple[KeyPath, Problem]]]:
    """Return the recipe without its invalid values, and the problems of these values.

    A recipe with invalid values is never used for a run: it lets the checks find other problems.

    Args:
        data: The sections.
        invalid: Paths of values that are known to be invalid; the paths of others are added.
        root: The class of all sections.
    """
    data = copy.deepcopy(data)
    problems: list[tuple[KeyPath, Problem]] = []
    for path in invalid:
        _remove(data, path)
    for _ in range(4):  # removing a value may reveal a problem one level above
        try:
            return root.model_validate(data), problems
        except ValidationError as error:
            for path, problem in explain(error, data, root=root):
                if not any(path[: len(parent)] == parent for parent in invalid):
                    problems.append((path, problem))
                    invalid.add(path)
                _remove(data, path)
    return None, problems


def _innermost_key(path: KeyPath) -> KeyPath:
    """Return the path without list indices at its end: a list of numbers is removed as a whole."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _remove(data: Any, path: KeyPath) -> None:
    """Remove a value, or replace it with a placeholder if it is required."""
    target = data
    for part in path[:-1]:
        target = target[part]
    if path and (isinstance(target, list) or path[-1] in PLACEHOLDERS):
        target[path[-1]] = PLACEHOLDERS.get(str(path[-1]), PLACEHOLDERS["path"])
    elif path:
        target.pop(path[-1], None)


def _check(
    recipe: Root,
    checks: Sequence[Callable[[Root], list[Problem]]],
    document: Document,
    invalid: set[KeyPath],
) -> Iterable[Problem]:
    """Yield the problems that the checks find in valid values."""
    prefixes = tuple(f"{key_name(path)}." for path in invalid)
    for check in checks:
        for problem in check(recipe):
            if not f"{problem.where}.".startswith(prefixes):
                where = _locate(document, problem.where, type(recipe))
                yield replace(problem, where=where)


def _locate(document: Document, where: str, root: type[Section]) -> str:
    """Add file and line to a `where` that is a key path; return any other unchanged."""
    parts = where.split(".")
    if parts[0] not in root.model_fields:
        return where
    return document.where(tuple(int(part) if part.isdigit() else part for part in parts))
