"""Parse prompts and responses, which are strings or lists of messages, into messages.

Nulls: all records of an Arrow column have the same keys, so a null in a record of a Parquet file,
an Arrow file or a `datasets` data set may stand for a key that the source does not have. In such
records (`arrow=True`), null values are dropped from tool calls and tool schemas. In JSON, JSONL and
Python records they are kept. To keep nulls in Parquet, write arguments of a call as JSON text.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import MediaSlot, Message
from ..images import is_missing
from ..invalid_value import InvalidValue, brief

__all__ = [
    "Prompt",
    "describe",
    "is_empty",
    "parse_json",
    "parse_prompt",
    "parse_tools",
    "response_text",
]

PLACEHOLDER = "<image>"
"""Placeholder of an image in a string, for all models."""
REASONING_KEYS = frozenset({"reasoning_content", "reasoning", "thinking"})
"""Keys of a message that may contain reasoning in addition to its content."""
LINE_BREAK = re.compile(r"^\r?\n")


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt.

    Attributes:
        messages: Its turns.
        raw: Whether it was a plain string.
        images: The images in its parts, in order.
    """

    messages: tuple[Message, ...]
    raw: bool
    images: tuple[Any, ...] = field(default=())

    def with_slots(self, images: int) -> "Prompt":
        """Return the prompt with its images at the beginning, unless it has placeholders."""
        if not (images and self.messages) or any(message.image_slots for message in self.messages):
            return self
        messages = list(self.messages)
        first = next((n for n, m in enumerate(messages) if m.role == "user"), 0)
        parts = (MediaSlot("image"),) * images + messages[first].parts
        messages[first] = dataclasses.replace(messages[first], parts=parts)
        return Prompt(tuple(messages), self.raw, self.images)


def parse_prompt(value: Any, *, arrow: bool = False) -> Prompt:
    """Return the messages of a prompt.

    Args:
        value: A string, or a list of turns.
        arrow: Whether the record comes from Arrow or Parquet, where a null may mean no value.

    Raises:
        InvalidValue: If it is something else.
    """
    plain = isinstance(value, str)
    if not plain and not (isinstance(value, list | tuple) and value):
        remedy = "Use a string, or a list of {'role', 'content'} messages"
        raise InvalidValue(f"found {describe(value)}", remedy)
    if plain and not value.strip():
        raise InvalidValue(
            "the prompt is empty", "Write a prompt, or <image> for an image without text"
        )
    images: list[Any] = []
    turns = [{"role": "user", "content": value}] if plain else value
    messages = tuple(_message(turn, images, arrow=arrow) for turn in turns)
    return Prompt(messages, plain, tuple(images))


def response_text(value: Any, prompt: Sequence[Message]) -> str:
    """Return the text of a response: a string, or a conversation that ends with it.

    A conversation may repeat the prompt before the response, as many public data sets do.

    Raises:
        InvalidValue: If it is something else.
    """
    if isinstance(value, str):
        return _checked(value)
    turns = [value] if isinstance(value, Mapping) else value
    if not (isinstance(turns, list | tuple) and turns):
        remedy = "Use a string, or a list with the assistant's message"
        raise InvalidValue(f"found {describe(value)}", remedy)
    *context, last = turns
    messages = [*(_message(turn, []) for turn in context), _message(last, [], is_response=True)]
    before = [(turn.role, turn.text) for turn in messages[:-1]]
    repeated = [(turn.role, turn.text) for turn in prompt]
    response = messages[-1]
    allowed = [[], repeated, repeated[-len(before) :]]
    if repeated[-1:] == [("assistant", response.text)]:  # the prompt already ends with the response
        allowed.append(repeated[:-1])
    longer = bool(repeated) and before[: len(repeated)] == repeated
    extra = before[len(repeated) :] if longer else before
    continues = before not in allowed and (longer or extra[0][0] == "assistant")
    if response.role == "assistant" and continues:
        roles = ", ".join(role for role, _ in [*extra, (response.role, "")])
        problem = f"{len(extra) + 1} messages follow the prompt ({roles}), expected a single one"
        remedy = (
            "Cut the dialogues after the first assistant message that differs, or remove the row"
        )
        raise InvalidValue(problem, remedy)
    if response.role != "assistant" or before not in allowed:
        roles = ", ".join(turn.role for turn in messages)
        remedy = "Use only the assistant's message, or the prompt followed by it"
        raise InvalidValue(f"found messages of {roles}", remedy)
    if response.image_slots:
        remedy = "Remove it: images belong to the prompt"
        raise InvalidValue("the response contains an image placeholder", remedy)
    extras = parse_json(response.extras or "{}")
    for name in REASONING_KEYS & extras.keys():
        remedy = "Move it into the content, in the form of the model's template, or remove it"
        raise InvalidValue(f"the response contains '{name}' in addition to its content", remedy)
    if "tool_calls" in extras:
        remedy = "Write the response as text, with the call in the form of the model's template"
        raise InvalidValue("the response calls a tool, which is not supported yet", remedy)
    return response.text


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
    return _as_json([_tool(item, remedy, arrow=arrow) for item in value])


def _tool(value: Any, remedy: str, *, arrow: bool) -> Mapping[str, Any]:
    """Return the schema of a tool with its parameters as an object."""
    tool = _parsed(value, "a tool is", remedy) if isinstance(value, str) else value
    if not isinstance(tool, Mapping):
        raise InvalidValue(f"found {describe(value)}", remedy)
    tool = _without_nulls(tool) if arrow and tool is value else tool
    for schema in (tool, tool.get("function")):
        if isinstance(schema, Mapping) and isinstance(schema.get("parameters"), str):
            problem = "the parameters of a tool are"
            parameters = _parsed(schema["parameters"], problem, "Use a JSON schema")
            changed = {**schema, "parameters": parameters}
            return changed if schema is tool else {**tool, "function": changed}
    return tool


def _tool_calls(value: Any) -> Any:
    """Return the calls of a message with their arguments as objects.

    In OpenAI's form the arguments are JSON text, which templates would encode again with `tojson`.
    """
    remedy = "Use a list of {'function': {'name': ..., 'arguments': {...}}}"
    calls = _parsed(value, "the tool calls are", remedy) if isinstance(value, str) else value
    parsed = [_call(call) for call in calls] if isinstance(calls, list | tuple) else [calls]
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in parsed):
        raise InvalidValue(f"the tool calls are {describe(value)}", remedy)
    return parsed


def _call(value: Any) -> Any:
    """Return a call, `{"function": {...}}` or only the function, with parsed arguments."""
    call = _parsed(value, "a call is", "Use an object") if isinstance(value, str) else value
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"])}
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


def _as_json(value: Any) -> str:
    """Return a value as JSON text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError) as error:
        raise InvalidValue("it is nested too deeply", "Use less nesting") from error


def _without_nulls(value: Any) -> Any:
    """Return nested records without the keys whose value is `None`."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
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


def _message(
    turn: Any, images: list[Any], *, is_response: bool = False, arrow: bool = False
) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        remedy = "Write each message as {'role': ..., 'content': ...}"
        raise InvalidValue(f"a message is {describe(turn)}", remedy)
    extras = {
        name: _without_nulls(value) if arrow else value
        for name, value in turn.items()
        if name not in ("role", "content") and not is_empty(value)
    }
    for name, parse in (("tool_calls", _tool_calls), ("function_call", _call)):
        if name in extras:
            extras[name] = parse(extras[name])
    extras_json = _as_json(extras) if extras else ""
    content = turn.get("content")
    if isinstance(content, str):
        text = _checked(content)  # in a response, <image> is ordinary text
        return Message(turn["role"], (text,) if is_response else _split(text), extras_json)
    if isinstance(content, list | tuple):
        parts = tuple(_part(part, images) for part in content)
        return Message(turn["role"], parts, extras_json)
    if content is None and "tool_calls" in extras:
        return Message(turn["role"], (), extras_json)
    remedy = "Use a string, or a list of {'type': 'text' | 'image'} parts"
    raise InvalidValue(f"a message's content is {describe(content)}", remedy)


def _part(part: Any, images: list[Any]) -> str | MediaSlot:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url"):
        values = [part.get(name) for name in ("image", "path", "url", "image_url", "base64")]
        image = next((value for value in values if not is_missing(value)), None)
        if image is not None:
            images.append(image["url"] if isinstance(image, Mapping) and "url" in image else image)
        return MediaSlot("image")
    if kind == "text" and isinstance(part.get("text"), str):
        return _checked(part["text"])
    if kind in ("video", "audio"):
        raise InvalidValue(
            f"a part of a message is {kind}, which is not supported yet", "Remove it"
        )
    remedy = "Write {'type': 'text', 'text': ...} or {'type': 'image'}"
    raise InvalidValue(f"a part of a message is {brief(part, 80)}", remedy)


def _checked(text: str) -> str:
    """Return a text if it can be encoded as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"the text contains an unpaired surrogate at position {error.start}"
        raise InvalidValue(problem, "Write the text again, with complete characters") from error
    return text


def _split(text: str) -> tuple[str | MediaSlot, ...]:
    """Split a string at its placeholders.

    The line break after the placeholders at the beginning is dropped, because the model's template
    decides how images are separated from the question.
    """
    pieces: list[str | MediaSlot] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            pieces.append(MediaSlot("image"))
            if all(isinstance(before, MediaSlot) for before in pieces):
                piece = LINE_BREAK.sub("", piece, count=1)
        if piece:
            pieces.append(piece)
    return tuple(pieces)
