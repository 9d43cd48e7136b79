"""Check a value against a type hint, strictly, with the messages of a recipe."""

import json
from dataclasses import replace
from enum import Enum
from functools import cache
from typing import Any, Union, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from ...errors import Problem
from ..problems import explain

__all__ = ["type_problems", "validated"]


def type_problems(where: str, value: Any, hint: Any) -> list[Problem]:
    """Return the problems of a value that is not of a type, as of a field of a loss."""
    kinds = get_args(hint)
    if any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds):
        # transformers reads an enumeration from text, but not from any text
        hint = Union[tuple(kind for kind in kinds if kind is not str)]  # noqa: UP007
    try:
        validated(value, hint)
    except PydanticSchemaGenerationError:  # a type of a library, which checks the value itself
        return []
    except ValidationError as error:
        return [
            replace(problem, where=".".join([where, *map(str, path)]))
            for path, problem in explain(error, value, root=hint)
        ]
    return []


def validated(value: Any, hint: Any) -> Any:
    """Validate as JSON: strict about numbers and text, but a list is accepted for a tuple."""
    return _adapter(hint).validate_json(json.dumps(value), strict=True)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
