"""Convert the errors of pydantic to problems with place, message and remedy."""

import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import Problem, counted
from ..plugins import suggestion
from .numbers import written
from .options import documentation
from .recipe import Recipe
from .secrets import MASK, is_secret_key, mask_text
from .yaml_loader import KeyPath

__all__ = ["describe", "explain", "explain_settings", "remedy_for"]

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
"""First word of pydantic's name of a type error -> the values that are valid."""

INSTEAD_OF_BOOL: dict[KeyPath, tuple[str, str]] = {
    ("run", "resume"): ("auto", "never"),
}
"""Key path -> values that mean the same as true and false there."""

PATHS = {
    "name_or_path": "Use the directory or the hub name of a model",
    "base_name_or_path": "Use the directory or the hub name of a model, or null",
    "path": "Use the path of a file or directory, or the name of a data set on a hub",
    "images": "Use the path of a directory, or null",
    "output_dir": "Use the path of a directory",
}
"""Key whose value is a path -> the remedy for true or false, which are not paths."""


def explain_settings(
    error: ValidationError, data: Any, keys: Sequence[str]
) -> list[tuple[KeyPath, Problem]]:
    """Return the problems of a section that is validated outside of this package, with key paths.

    Args:
        error: The error of pydantic.
        data: The values of the section.
        keys: The keys that the section may have.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        path = _path_in(data, details) or details["loc"][:1]
        by_path.setdefault(path, []).append(details)
    return [(path, _setting_problem(path, errors, keys)) for path, errors in by_path.items()]


def _setting_problem(path: KeyPath, errors: list[ErrorDetails], keys: Sequence[str]) -> Problem:
    first, name = errors[0], str(path[-1]) if path else ""
    if first["type"] in ("missing", "missing_argument"):
        return Problem("", f"'{name}' is missing", "Add it")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        text = f"unknown key '{name}'{suggestion(name, keys)}"
        return Problem("", text, f"Use one of {', '.join(keys)}")
    value = MASK if is_secret_key(name) else first["input"]
    return _value_problem(value, errors, [text for error in errors for text in _expected(error)])


def _expected(error: ErrorDetails) -> list[str]:
    """Return the values that a field allows, if its values are a choice."""
    if error["type"] not in ("literal_error", "enum"):
        return []
    return re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))


def explain(
    error: ValidationError, data: Any, *, root: type[BaseModel] = Recipe
) -> list[tuple[KeyPath, Problem]]:
    """Return the problems of a validation with their key paths, one per path.

    The `where` of the problems is empty: only the caller knows the file.

    Args:
        error: The error of pydantic.
        data: The values that were validated.
        root: The model that validated them.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_path_in(data, details), []).append(details)
    # if one type of a union refuses a list and another an item of it, only the item is wrong
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


def remedy_for(value: Any, kinds: list[str]) -> str:
    """Return the remedy for a value of the wrong type.

    Args:
        value: The value.
        kinds: The types that are allowed, as keys of `EXAMPLES`.
    """
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
    """Return the key path of an error: its location without names of types of a union."""
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


def _problem(path: KeyPath, errors: list[ErrorDetails], root: type[BaseModel]) -> Problem:
    first = errors[0]
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):  # too few items
        return Problem(
            "", f"found {describe(first['input'])}", "Use two numbers, for example [0, 10]"
        )
    if first["type"] == "missing":
        return Problem("", f"'{path[-1]}' is missing", f"Add it: {_meaning(path, root)}")
    if first["type"] == "extra_forbidden":
        return _unknown_key(path, root)
    value = first["input"]
    if path and is_secret_key(str(path[-1])):
        value = MASK
    if isinstance(value, bool) and path in INSTEAD_OF_BOOL:
        for_true, for_false = INSTEAD_OF_BOOL[path]
        return Problem("", f"found {describe(value)}", f"Use {for_true if value else for_false}")
    if isinstance(value, bool) and path and path[-1] in PATHS and _kind(first) == "string":
        return Problem("", f"found {describe(value)}", PATHS[str(path[-1])])
    return _value_problem(
        value, errors, [text for error in errors for text in _choices(path, error, root)]
    )


def _value_problem(value: Any, errors: list[ErrorDetails], literals: list[str]) -> Problem:
    first = errors[0]
    if literals and isinstance(value, str):
        near = suggestion(value, literals)
        kinds = [kind for kind in map(_kind, errors) if kind]
        further = "".join(f", or {EXAMPLES[kind]}" for kind in kinds)
        problem = f"found {describe(value)}{near}"
        return Problem("", problem, f"Use {_one_of(literals)}{further}")
    kinds = [kind for kind in map(_kind, errors) if kind]
    if kinds or literals:
        remedy = remedy_for(value, kinds) if kinds else f"Use {_one_of(literals)}"
        rules = [
            _rule(error)
            for error in errors
            if error["type"] != "literal_error" and _kind(error) is None
        ]
        if rules and not kinds:  # a number out of range, where a word is allowed as well
            remedy = f"{remedy}, or {rules[0].removeprefix('Write ')}"
        return Problem("", f"found {describe(value)}", remedy)
    return Problem("", f"found {describe(value)}", _rule(first))


def _kind(error: ErrorDetails) -> str | None:
    if error["type"] == "int_from_float":
        return "int"
    kind, _, category = error["type"].rpartition("_")
    return kind if category in ("type", "parsing") and kind in EXAMPLES else None


def _rule(error: ErrorDetails) -> str:
    """Return the remedy for a value out of range: "Use a value greater than 0"."""
    message, context = error["msg"], error.get("ctx", {})
    if error["type"] == "too_short":
        return f"Use a list of at least {counted(context['min_length'], 'item')}"
    if error["type"] == "too_long":
        return f"Use a list of {counted(context['max_length'], 'item')}"
    if error["type"] == "string_too_short":
        return "Use some text"
    if error["type"] == "finite_number":
        return "Use a finite number"
    if error["type"] == "none_required":
        return "Use null"
    if message.startswith("Input should be "):
        return f"Use a value {message.removeprefix('Input should be ')}"
    message = message.removeprefix("Value error, ").rstrip(".")
    return message if message.startswith("Use ") else f"Fix the value: {message}"


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _choices(path: KeyPath, error: ErrorDetails, root: type[BaseModel]) -> list[str]:
    if error["type"] != "literal_error":
        return []
    field = _field_type(path, root)
    choices = [str(value) for part in _members(field) for value in _literal_values(part)]
    return choices or [str(error.get("ctx", {}).get("expected", ""))]


def _unknown_key(path: KeyPath, root: type[BaseModel]) -> Problem:
    name, keys = str(path[-1]), _keys(path[:-1], root)
    near = suggestion(name, keys)
    sections = [section for section in root.model_fields if name in _keys((section,), root)]
    if not near and sections:
        return Problem("", f"unknown key '{name}'", f"Move it to '{sections[0]}'")
    owner = next(
        (f"'{part}'" for part in reversed(path[:-1]) if isinstance(part, str)), "the recipe"
    )
    problem = f"unknown key '{name}'{near}"
    return Problem("", problem, f"Choose one of the keys of {owner}: {', '.join(keys)}")


def _keys(path: KeyPath, root: type[BaseModel]) -> list[str]:
    for member in _members(_field_type(path, root)):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return list(member.model_fields)
        if hasattr(member, "__required_keys__"):
            return sorted(member.__required_keys__ | member.__optional_keys__)
    return []


def _meaning(path: KeyPath, root: type[BaseModel]) -> str:
    for member in _members(_field_type(path[:-1], root)):
        if isinstance(member, type) and issubclass(member, BaseModel):
            text = documentation(member).get(str(path[-1]), "").split(". ")[0].rstrip(".")
            return text[:1].lower() + text[1:]
    return ""


def _field_type(path: KeyPath, root: type[BaseModel]) -> Any:
    """Return the declared type at a key path, or None if there is none."""
    kind: Any = root
    for part in path:
        inner: Any = None
        for member in _members(kind):
            if isinstance(member, type) and issubclass(member, BaseModel) and isinstance(part, str):
                field = member.model_fields.get(part)
                inner = field.annotation if field else None
            elif hasattr(member, "__required_keys__"):
                inner = member.__annotations__.get(part)
            elif get_origin(member) is tuple and isinstance(part, int):
                inner = get_args(member)[0]
        kind = inner
    return kind


def _members(kind: Any) -> list[Any]:
    """Return the members of a union without None; for any other type, the type itself."""
    kind = getattr(kind, "__value__", kind)
    if get_origin(kind) in (Union, UnionType):
        return [m for part in get_args(kind) if part is not NoneType for m in _members(part)]
    if hasattr(kind, "__metadata__"):  # Annotated
        return _members(get_args(kind)[0])
    return [] if kind is None else [kind]


def _literal_values(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()
