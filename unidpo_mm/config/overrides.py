"""Apply overrides from the command line, `section.key=value`, to a document.

Values follow the rules of the file. `data.sources.0.path=b.jsonl` changes an item of a list, and
the index after the last item adds one. Sections that are missing or null are created.
"""

from collections.abc import Sequence
from typing import Any

from ..errors import Problem, counted
from ..secrets import mask_text
from .yaml_loader import Document, KeyPath, parse_yaml

__all__ = ["apply_overrides"]


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Change values of a document in place; record the overrides and their problems in it."""
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        written = mask_text(override)  # a message may quote it
        where = f"override '{written}'"
        if not equals or not all(parts):
            remedy = "Use the form train.learning_rate=1e-6, without spaces around '='"
            document.problems.append(Problem(where, "expected section.key=value", remedy))
            continue
        path = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
        value = parse_yaml(text, where)
        problems = value.problems or _set(document, path, value.data, written)
        document.problems.extend(problems)
        if not problems:
            document.overrides[path] = written


def _set(document: Document, path: KeyPath, value: Any, written: str) -> list[Problem]:
    """Set the value at a path, and create its sections; return why that is not possible."""
    if document.data is None:
        document.data = {}
    target = document.data
    for depth, part in enumerate(path):
        if problem := _lookup_problem(target, part, path[:depth], written):
            return [problem]
        if depth == len(path) - 1:
            _store(target, part, value)
            break
        inner = _item(target, part)
        if inner is None:
            inner = [] if isinstance(path[depth + 1], int) else {}
            _store(target, part, inner)
            document.overrides.setdefault(path[: depth + 1], written)
        target = inner
    return []


def _item(target: Any, part: str | int) -> Any:
    if isinstance(target, dict):
        return target.get(part)
    return target[part] if int(part) < len(target) else None


def _store(target: Any, part: str | int, value: Any) -> None:
    if isinstance(target, list) and part == len(target):
        target.append(value)
    else:
        target[part] = value


def _lookup_problem(target: Any, part: str | int, path: KeyPath, written: str) -> Problem | None:
    """Return why `part` cannot be looked up in `target`, the value at `path`, or None if it can."""
    where, name = f"override '{written}'", ".".join(map(str, path)) or "the recipe"
    if isinstance(target, list):
        if isinstance(part, int) and part <= len(target):
            return None
        size = len(target)
        text = f"{name} has {counted(size, 'item')}, so there is no item '{part}'"
        if not isinstance(part, int):
            text = f"{name} is a list, and '{part}' is not the index of an item"
        index = {0: "0", 1: "0, or 1"}.get(size, f"an index from 0 to {size - 1}, or {size}")
        return Problem(where, text, f"Use {index} to add an item")
    if isinstance(target, dict):
        if isinstance(part, str):
            return None
        return Problem(where, f"{name} is a section, not a list", "Use the name of a key")
    return Problem(where, f"{name} is a single value and has no '{part}'", f"Set {name} itself")
