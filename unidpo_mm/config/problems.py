"""Convert pydantic's errors to problems with a place, a message and a remedy."""

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

from ..errors import Problem, counted
from ..plugins import suggestion
from ..secrets import MASK, is_secret_key, mask_text
from .numbers import LARGEST, written
from .options import documentation
from .recipe import Recipe
from .yaml_loader import KeyPath

__all__ = ["describe", "explain", "section_at"]

EXAMPLES = {
    "int": "a whole number, for example 16",
    "float": "a number, for example 0.1 or 1e-6",
    "bool": "true or false",
    "string": "text",
    "list": "a list, for example [a, b]",
    "tuple": "a list, for example [a, b]",
    "dict": "a section with keys of its own, for example {a: 1}",
    "model": "a section with keys of its own, for example {a: 1}",
    "model_attributes": "a section with keys of its own, for example {a: 1}",
    "dataclass": "a section with keys of its own, for example {a: 1}",
    "path": "text, the path of a file or directory",
}
"""First part of pydantic's name of a type error -> description of the valid values."""

RESUME = {True: "auto", False: "never"}
"""true or false -> the value of `run.resume` with that meaning."""

PATHS = {
    "name_or_path": "Use the directory or the hub name of a model",
    "base_name_or_path": "Use the directory or the hub name of a model, or null",
    "path": "Use the path of a file or directory, or the name of a data set on a hub",
    "images": "Use the path of a directory, or null",
    "output_dir": "Use the path of a directory",
}
"""Key whose value is a path -> the remedy if it is true or false."""


def explain(
    error: ValidationError, data: Any, *, root: Any = Recipe
) -> list[tuple[KeyPath, Problem]]:
    """Return the problems of a failed validation with their key paths, one per path.

    The `where` of the problems is empty: only the caller knows the file.

    Args:
        error: The error of pydantic.
        data: The values that were validated.
        root: The type that they were validated as, such as a pydantic model or a dataclass.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_path_in(data, details), []).append(details)
    # if one type of a union refuses a list and another type refuses only one of its items, the item
    # is what is wrong
    outer = {path[:length] for path in by_path for length in range(len(path))}
    return [
        (path, _problem(path, errors, root))
        for path, errors in by_path.items()
        if path not in outer
    ]


def describe(value: Any) -> str:
    """Describe a value as it is written in YAML, for a message that starts with "found"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = mask_text(value)
        return f"the text '{text if len(text) <= 60 else text[:57] + '...'}'"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a whole number of more than {len(str(LARGEST)) - 1} digits"
    if isinstance(value, int | float):
        return f"the number {written(value)}"
    if isinstance(value, list | tuple):
        items = ", ".join(map(str, value))
        if len(items) <= 60:
            return f"the list [{items}]"
        return f"a list of {counted(len(value), 'item')}"
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value)) or "none"
        return f"a section (keys: {keys})"
    return f"a {type(value).__name__}"


def _remedy_for(value: Any, kinds: list[str]) -> str:
    """Return the remedy for a value of the wrong type; `kinds` are keys of `EXAMPLES`."""
    if isinstance(value, str) and value.lower() in ("none", "nil", ""):
        return "Use null for no value"
    if "bool" in kinds and isinstance(value, str) and value.lower() in ("yes", "on", "no", "off"):
        return f"Use {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if kinds == ["string"] and isinstance(value, bool):
        return f"Use text, in quotes if it is '{str(value).lower()}' itself"
    if kinds == ["string"] and isinstance(value, int | float):
        return f"Put it in quotes: '{str(value).lower()}'"
    texts = list(dict.fromkeys(EXAMPLES[kind] for kind in kinds if kind in EXAMPLES))
    return f"Use {', or '.join(texts)}" if texts else "Use a value of another type"


def _path_in(data: Any, details: ErrorDetails) -> KeyPath:
    """Return the key path of an error: its location without the names of union members."""
    path: list[str | int] = []
    last = len(details["loc"]) - 1
    for position, part in enumerate(details["loc"]):
        if isinstance(data, dict) and isinstance(part, str):
            if part not in data and not (position == last and details["type"] == "missing"):
                continue
            path.append(part)
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
    return tuple(path)


def _problem(path: KeyPath, errors: list[ErrorDetails], root: Any) -> Problem:
    first, value, name = errors[0], errors[0]["input"], str(path[-1]) if path else ""
    if first["type"] == "missing":
        meaning = _meaning(path, root)
        return Problem("", f"'{name}' is missing", f"Add it: {meaning}" if meaning else "Add it")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown_key(path, root)
    if is_secret_key(name):
        value = MASK
    kinds = [kind for kind in map(_kind, errors) if kind]
    words = [word for error in errors for word in _choices(error)]
    text = f"found {describe(value)}"
    if isinstance(value, bool) and path == ("run", "resume"):
        remedy = f"Use {RESUME[value]}"
    elif isinstance(value, bool) and name in PATHS and _kind(first) == "string":
        remedy = PATHS[name]
    elif words and isinstance(value, str):
        text += suggestion(value, words)
        remedy = ", or ".join([f"Use {_one_of(words)}", *(EXAMPLES[kind] for kind in kinds)])
    elif kinds:
        remedy = _remedy_for(value, kinds)
    elif words:
        rules = [_rule(error) for error in errors if not _choices(error)]
        # a number is out of range, and the key also accepts some words
        remedy = ", or ".join([f"Use {_one_of(words)}", *rules[:1]]).replace("or Use ", "or ")
    else:
        remedy = _rule(first)
    return Problem("", text, remedy)


def _kind(error: ErrorDetails) -> str | None:
    if error["type"] == "int_from_float":
        return "int"
    kind, _, category = error["type"].rpartition("_")
    return kind if category in ("type", "parsing") and kind in EXAMPLES else None


RULES = {
    "string_too_short": "Use some text",
    "finite_number": "Use a finite number",
    "none_required": "Use null",
}
"""pydantic's name of an error -> the remedy."""


def _rule(error: ErrorDetails) -> str:
    """Return the remedy for an invalid value, for example "Use a value greater than 0"."""
    message, context = error["msg"], error.get("ctx", {})
    if error["type"] in RULES:
        return RULES[error["type"]]
    if error["type"] == "too_short":
        return f"Use a list of at least {counted(context['min_length'], 'item')}"
    if error["type"] == "too_long":
        return f"Use a list of {counted(context['max_length'], 'item')}"
    if message.startswith("Input should be "):
        return f"Use a value {message.removeprefix('Input should be ')}"
    message = message.removeprefix("Value error, ").rstrip(".")
    return message if message.startswith("Use ") else f"Fix the value: {message}"


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _choices(error: ErrorDetails) -> list[str]:
    """Return the allowed words if the type is an enumeration of words."""
    if error["type"] not in ("literal_error", "enum"):
        return []
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _unknown_key(path: KeyPath, root: Any) -> Problem:
    name, keys = str(path[-1]), list(_keys(path[:-1], root))
    near = suggestion(name, keys)
    sections = [section for section in _keys((), root) if name in _keys((section,), root)]
    if not near and sections:
        return Problem("", f"unknown key '{name}'", f"Move it to '{sections[0]}'")
    owners = [f" of the keys of '{part}':" for part in path[:-1] if isinstance(part, str)]
    owner = owners[-1] if owners else " of"
    return Problem("", f"unknown key '{name}'{near}", f"Choose one{owner} {', '.join(keys)}")


def _meaning(path: KeyPath, root: Any) -> str:
    """Return the first sentence of the documentation of a required key."""
    section = section_at(path[:-1], root)
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return ""
    text = documentation(section).get(str(path[-1]), "").partition(". ")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def _keys(path: KeyPath, root: Any) -> Mapping[str, Any]:
    """Return the keys of the section at a path, with their types."""
    section = section_at(path, root)
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    return get_type_hints(section) if section else {}


def section_at(path: KeyPath, root: Any) -> Any:
    """Return the class with the keys of the section at a path; `None` if there is none.

    The type at the path may also be a union or a list of sections.
    """
    for part in path:
        if get_origin(root) is dict:
            root = get_args(root)[1]
        elif isinstance(part, str):
            root = _keys((), root).get(part)
    if isinstance(root, type) and (
        issubclass(root, BaseModel) or is_dataclass(root) or is_typeddict(root)
    ):
        return root
    return next(filter(None, (section_at((), part) for part in get_args(root))), None)
