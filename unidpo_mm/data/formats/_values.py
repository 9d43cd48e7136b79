"""Parse values of records that are not text: numbers, tools, calls of tools and JSON.

Nulls: all records of an Arrow column have the same keys, so a null in a record of a Parquet file,
an Arrow file or a `datasets` data set may stand for a key that the source does not have. In such
records (`arrow=True`), null values are dropped from tool calls and tool schemas. In JSON, JSONL and
Python records they are kept. To keep nulls in Parquet, write arguments of a call as JSON text.
"""

import json
import math
import numbers
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from ..images import is_missing
from ..invalid_value import InvalidValue, brief

__all__ = [
    "as_json",
    "describe",
    "has_no_media",
    "is_empty",
    "parse_call",
    "parse_flag",
    "parse_json",
    "parse_number",
    "parse_tool_calls",
    "parse_tools",
    "without_nulls",
]

FLAGS = {"true": True, "1": True, "false": False, "0": False}
"""Text of a label -> whether the response is good."""


def parse_tools(value: Any, *, arrow: bool = False) -> str:
    """Return the tools of a row as JSON.

    The list of schemas, each schema, and the parameters of a function may be JSON text.

    Args:
        value: The schemas.
        arrow: Whether the record comes from Arrow or Parquet, where a null may mean no value.

    Raises:
        InvalidValue: If they are not a list of schemas.
    """
    if is_empty(value):
        return ""
    remedy = "Use a list of JSON schemas of functions"
    if isinstance(value, str):
        value = _parsed(value, "the tools are", remedy)
        if is_empty(value):
            return ""
        arrow = False
    if not isinstance(value, list | tuple):
        raise InvalidValue(f"found {describe(value)}", remedy)
    return as_json([_tool(item, remedy, arrow=arrow) for item in value])


def _tool(value: Any, remedy: str, *, arrow: bool) -> Mapping[str, Any]:
    """Return the schema of a tool with its parameters as an object."""
    tool = _parsed(value, "a tool is", remedy) if isinstance(value, str) else value
    if not isinstance(tool, Mapping):
        raise InvalidValue(f"found {describe(value)}", remedy)
    tool = without_nulls(tool) if arrow and tool is value else tool
    for schema in (tool, tool.get("function")):
        if isinstance(schema, Mapping) and isinstance(schema.get("parameters"), str):
            problem = "the parameters of a tool are"
            parameters = _parsed(schema["parameters"], problem, "Use a JSON schema")
            changed = {**schema, "parameters": parameters}
            return changed if schema is tool else {**tool, "function": changed}
    return tool


def parse_flag(value: Any) -> bool:
    """Return a label: true or false, 1 or 0, or these words as text.

    Raises:
        InvalidValue: If it is anything else.
    """
    text = str(value).strip().lower()
    if isinstance(value, bool | str | numbers.Integral) and text in FLAGS:
        return FLAGS[text]
    raise InvalidValue(
        f"found {describe(value)}", "Use true for a good response and false for a bad one"
    )


def parse_tool_calls(value: Any) -> Any:
    """Return the calls of a message with their arguments as objects.

    In OpenAI's form the arguments are JSON text, which templates would encode again with `tojson`.
    """
    remedy = "Use a list of {'function': {'name': ..., 'arguments': {...}}}"
    calls = _parsed(value, "the tool calls are", remedy) if isinstance(value, str) else value
    parsed = [parse_call(call) for call in calls] if isinstance(calls, list | tuple) else [calls]
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in parsed):
        raise InvalidValue(f"the tool calls are {describe(value)}", remedy)
    return parsed


def parse_call(value: Any) -> Any:
    """Return a call, `{"function": {...}}` or only the function, with parsed arguments."""
    call = _parsed(value, "a call is", "Use an object") if isinstance(value, str) else value
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": parse_call(call["function"])}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    remedy = "Use an object, or JSON text of one"
    parsed = _parsed(arguments, "the arguments of a tool call are", remedy) if arguments else {}
    if not isinstance(parsed, Mapping):
        problem = f"the arguments of a tool call are {describe(parsed)} as JSON text"
        raise InvalidValue(problem, remedy)
    return {**call, "arguments": parsed}


def _parsed(text: str, subject: str, remedy: str) -> Any:
    """Return the value of JSON text; raise `InvalidValue` if it is not valid."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise InvalidValue(f"{subject} not valid JSON ({error})", remedy) from error


def as_json(value: Any) -> str:
    """Return a value as JSON text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError) as error:
        raise InvalidValue("it is nested too deeply", "Use less nesting") from error


def without_nulls(value: Any) -> Any:
    """Return nested records without the keys whose value is `None`."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def is_empty(value: Any) -> bool:
    """Return whether a value is `None`, or an empty string or list, as of a missing column."""
    return value is None or (isinstance(value, str | list | tuple) and not value)


def parse_json(text: str) -> Any:
    """Return the value of JSON text.

    Raises:
        ValueError: If it is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def describe(value: Any) -> str:
    """Return the type and the beginning of a value, for messages."""
    return "nothing" if value is None else f"{type(value).__name__} ({brief(value)!r})"


def has_no_media(value: Any) -> bool:
    """Return whether a column of images or videos is empty or contains only empty entries."""
    if isinstance(value, list | tuple):
        return all(map(has_no_media, value))
    return is_missing(value)


def parse_number(value: Any) -> float | None:
    """Return a finite number, or `None`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Number | Decimal):
        text = repr(value) if isinstance(value, str | bool) else brief(value, 80)
        raise InvalidValue(f"found {text}"[:80], "Use a number or null")
    try:
        number = float(cast("float", value))  # raises TypeError for complex numbers
    except (OverflowError, TypeError, ValueError) as error:
        raise InvalidValue(f"found {brief(value, 40)}", "Use a finite number") from error
    if not math.isfinite(number):
        raise InvalidValue(f"found {number}", "Use a finite number")
    return number
