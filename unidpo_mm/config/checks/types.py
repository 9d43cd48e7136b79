"""Check a value against a type hint, strictly, with the messages of a recipe."""

import json
import re
from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from ...errors import Problem
from ...plugins import suggestion
from ..problems import describe, explain_settings, remedy_for

__all__ = ["type_problems", "validated"]


def type_problems(where: str, value: Any, hint: Any) -> list[Problem]:
    """Return a problem if a value is not of a type, such as a field of `TrainingArguments`."""
    choices = _enum_values(hint)
    if isinstance(value, str) and choices and value not in choices:
        return [_not_a_choice(where, value, choices)]
    try:
        validated(value, hint)
    except PydanticSchemaGenerationError:  # a type of a library, which checks the value itself
        return []
    except ValidationError as error:
        only_words = choices and not isinstance(value, dict | list)
        return [
            _not_a_choice(where, value, choices) if only_words else _wrong_type(where, value, error)
        ]
    return []


def _wrong_type(where: str, value: Any, error: ValidationError) -> Problem:
    errors = error.errors(include_url=False)
    expected = [str(e["ctx"]["expected"]) for e in errors if e["type"] == "literal_error"]
    if expected:
        return _not_a_choice(where, value, re.findall(r"'([^']*)'", " ".join(expected)))
    kinds = [
        kind for kind, _, what in (e["type"].rpartition("_") for e in errors) if what == "type"
    ]
    if kinds:
        return Problem(where, f"found {describe(value)}", remedy_for(value, kinds))
    (_, problem), *_ = explain_settings(error, value, ())
    return Problem(where, f"found {describe(value)}", problem.remedy)


def _not_a_choice(where: str, value: Any, choices: Sequence[str]) -> Problem:
    near = suggestion(value, choices) if isinstance(value, str) else ""
    return Problem(where, f"found {describe(value)}{near}", f"Use one of {', '.join(choices)}")


def _enum_values(hint: Any) -> list[str]:
    """Return the values of the enumerations in a type hint, which transformers reads from text."""
    kinds = (hint, *get_args(hint))
    members = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    return [str(item.value) for member in members for item in member]


def validated(value: Any, hint: Any) -> Any:
    """Validate as JSON: strict about numbers and text, but a list is accepted for a tuple."""
    return _adapter(hint).validate_json(json.dumps(value), strict=True)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
