"""Prompts and answers of every spelling become messages: strings, turns, parts, placeholders.

Nulls. Arrow gives every record of a column the same keys, so a null inside a record of Parquet, of
an Arrow file or of a `datasets` data set may never have been in the source. There, keys of null are
dropped from tool calls and tool schemas (`arrow=True`). In JSON, JSONL and Python records a null is
what its author wrote, and is kept. Whoever needs nulls in Parquet writes the arguments of a call as
JSON text, which is parsed once and keeps them.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import ImageSlot, Message
from ..images import is_no_image
from ..wrong import WrongValue, brief

__all__ = [
    "Prompt",
    "answer_of",
    "describe",
    "is_empty",
    "json_of",
    "prompt_of",
    "tools_of",
]

PLACEHOLDER = "<image>"
"""What stands for an image in a string, whatever the model's own token is."""
THOUGHTS = frozenset({"reasoning_content", "reasoning", "thinking"})
"""What may hold a part of an answer beside its text."""
LINE_BREAK = re.compile(r"^\r?\n")


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was read.

    Attributes:
        messages: Its turns.
        raw: It was a plain string.
        images: The images that stand inside its parts, in order.
    """

    messages: tuple[Message, ...]
    raw: bool
    images: tuple[Any, ...] = field(default=())

    def with_slots(self, images: int) -> "Prompt":
        """Return the prompt with its images in front, where it says nothing of their place."""
        if not (images and self.messages) or any(message.image_slots for message in self.messages):
            return self
        messages = list(self.messages)
        first = next((n for n, m in enumerate(messages) if m.role == "user"), 0)
        slots = tuple(ImageSlot() for _ in range(images))
        parts = slots + messages[first].parts
        messages[first] = dataclasses.replace(messages[first], parts=parts)
        return Prompt(tuple(messages), self.raw, self.images)


def prompt_of(value: Any, *, arrow: bool = False) -> Prompt:
    """Return the messages of a prompt: a string, or a list of turns.

    Args:
        value: The prompt.
        arrow: The record comes from Arrow, whose nulls may not be in the source.

    Raises:
        WrongValue: If it is neither.
    """
    plain = isinstance(value, str)
    if not plain and not (isinstance(value, list | tuple) and value):
        remedy = "Give a string, or a list of {'role', 'content'} messages"
        raise WrongValue(f"found {describe(value)}", remedy)
    if plain and not value.strip():
        raise WrongValue("the prompt is empty", "Write a prompt; <image> stands for an image alone")
    images: list[Any] = []
    turns = [{"role": "user", "content": value}] if plain else value
    messages = tuple(_message(turn, images, arrow=arrow) for turn in turns)
    return Prompt(messages, plain, tuple(images))


def answer_of(value: Any, prompt: Sequence[Message]) -> str:
    """Return the text of an answer: a string, or a conversation that ends with it.

    A conversation may repeat the prompt before the answer, as many public data sets do.

    Raises:
        WrongValue: If it is something else.
    """
    if isinstance(value, str):
        return _unbroken(value)
    turns = [value] if isinstance(value, Mapping) else value
    if not (isinstance(turns, list | tuple) and turns):
        remedy = "Give a string, or a list with the assistant's message"
        raise WrongValue(f"found {describe(value)}", remedy)
    *asked, said = turns
    messages = [*(_message(turn, []) for turn in asked), _message(said, [], answer=True)]
    before = [(turn.role, turn.text) for turn in messages[:-1]]
    repeated = [(turn.role, turn.text) for turn in prompt]
    answer = messages[-1]
    allowed = [[], repeated, repeated[-len(before) :]]
    if repeated[-1:] == [("assistant", answer.text)]:  # the prompt holds the response already
        allowed.append(repeated[:-1])
    longer = bool(repeated) and before[: len(repeated)] == repeated
    extra = before[len(repeated) :] if longer else before
    continues = before not in allowed and (longer or extra[0][0] == "assistant")
    if answer.role == "assistant" and continues:
        roles = ", ".join(role for role, _ in [*extra, (answer.role, "")])
        problem = f"{len(extra) + 1} messages follow the prompt ({roles}), and a response is one"
        remedy = (
            "Cut the dialogues after the first assistant message that differs, or remove the row"
        )
        raise WrongValue(problem, remedy)
    if answer.role != "assistant" or before not in allowed:
        roles = ", ".join(turn.role for turn in messages)
        remedy = "Give the assistant's message alone, or the prompt followed by it"
        raise WrongValue(f"found messages of {roles}", remedy)
    if answer.image_slots:
        remedy = "Remove it: images belong to the prompt"
        raise WrongValue("the answer holds an image placeholder", remedy)
    extras = json_of(answer.extras or "{}")
    for name in THOUGHTS & extras.keys():
        remedy = "Write it into the content, as the model's template writes it, or remove it"
        raise WrongValue(f"the answer holds '{name}' beside its content", remedy)
    if "tool_calls" in extras:
        remedy = "Write the answer as text, as the model's template writes a call"
        raise WrongValue("the answer calls a tool, which is not understood yet", remedy)
    return answer.text


def tools_of(value: Any, *, arrow: bool = False) -> str:
    """Return the tools of a row as JSON.

    They come as a list of schemas or as JSON text of one; a schema, and the parameters of a
    function, may be JSON text themselves.

    Args:
        value: The tools.
        arrow: The record comes from Arrow, whose nulls may not be in the source.

    Raises:
        WrongValue: If they are something else.
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
        raise WrongValue(f"found {describe(value)}", remedy)
    return _as_json([_tool(item, remedy, arrow=arrow) for item in value])


def _tool(value: Any, remedy: str, *, arrow: bool) -> Mapping[str, Any]:
    """Return the schema of one tool, its parameters as an object."""
    tool = _parsed(value, "a tool is", remedy) if isinstance(value, str) else value
    if not isinstance(tool, Mapping):
        raise WrongValue(f"found {describe(value)}", remedy)
    tool = _without_nulls(tool) if arrow and tool is value else tool
    for schema in (tool, tool.get("function")):
        if isinstance(schema, Mapping) and isinstance(schema.get("parameters"), str):
            problem = "the parameters of a tool are"
            parameters = _parsed(schema["parameters"], problem, "Use a JSON schema")
            changed = {**schema, "parameters": parameters}
            return changed if schema is tool else {**tool, "function": changed}
    return tool


def _tool_calls(value: Any) -> Any:
    """Return the calls of a message with their arguments as objects, whatever wrote them as text.

    OpenAI's form has the arguments as JSON text; a template encodes them with `tojson`, so text
    would be encoded twice.
    """
    remedy = "Use a list of {'function': {'name': ..., 'arguments': {...}}}"
    calls = _parsed(value, "the tool calls are", remedy) if isinstance(value, str) else value
    read = [_call(call) for call in calls] if isinstance(calls, list | tuple) else [calls]
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in read):
        raise WrongValue(f"the tool calls are {describe(value)}", remedy)
    return read


def _call(value: Any) -> Any:
    """Return one call, `{"function": {...}}` or the function itself, with parsed arguments."""
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
        problem = f"the arguments of a tool call are JSON text of {describe(parsed)}"
        raise WrongValue(problem, remedy)
    return {**call, "arguments": parsed}


def _parsed(text: str, subject: str, remedy: str) -> Any:
    """Return what JSON text holds; anything else is a `WrongValue`."""
    try:
        return json_of(text)
    except ValueError as error:
        raise WrongValue(f"{subject} not valid JSON ({error})", remedy) from error


def _as_json(value: Any) -> str:
    """Return a value as JSON text.

    Raises:
        WrongValue: If it is nested too deeply or refers to itself.
    """
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError) as error:
        raise WrongValue("it is nested too deeply", "Use less nesting") from error


def _without_nulls(value: Any) -> Any:
    """Return nested records without their keys of None."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def is_empty(value: Any) -> bool:
    """Says whether a value stands for a column that is not there."""
    return value is None or (isinstance(value, str | list | tuple) and not value)


def json_of(text: str) -> Any:
    """Return what a string of JSON holds.

    Raises:
        ValueError: If it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def describe(value: Any) -> str:
    """Says what a value is, briefly."""
    return "nothing" if value is None else f"{type(value).__name__} ({brief(value)!r})"


def _message(turn: Any, images: list[Any], *, answer: bool = False, arrow: bool = False) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        remedy = "Write each message as {'role': ..., 'content': ...}"
        raise WrongValue(f"a message is {describe(turn)}", remedy)
    extras = {
        name: _without_nulls(value) if arrow else value
        for name, value in turn.items()
        if name not in ("role", "content") and not is_empty(value)
    }
    for name, read in (("tool_calls", _tool_calls), ("function_call", _call)):
        if name in extras:
            extras[name] = read(extras[name])
    written = _as_json(extras) if extras else ""
    content = turn.get("content")
    if isinstance(content, str):
        text = _unbroken(content)  # in an answer <image> is a word as any other
        return Message(turn["role"], (text,) if answer else _split(text), written)
    if isinstance(content, list | tuple):
        parts = tuple(_part(part, images) for part in content)
        return Message(turn["role"], parts, written)
    if content is None and "tool_calls" in extras:
        return Message(turn["role"], (), written)
    remedy = "Give a string, or a list of {'type': 'text' | 'image'} parts"
    raise WrongValue(f"a message's content is {describe(content)}", remedy)


def _part(part: Any, images: list[Any]) -> str | ImageSlot:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url"):
        given = [part.get(name) for name in ("image", "path", "url", "image_url", "base64")]
        found = next((one for one in given if not is_no_image(one)), None)
        if found is not None:
            images.append(found["url"] if isinstance(found, Mapping) and "url" in found else found)
        return ImageSlot()
    if kind == "text" and isinstance(part.get("text"), str):
        return _unbroken(part["text"])
    if kind in ("video", "audio"):
        raise WrongValue(f"a part of a message is {kind}, which is not understood yet", "Remove it")
    remedy = "Write {'type': 'text', 'text': ...} or {'type': 'image'}"
    raise WrongValue(f"a part of a message is {brief(part, 80)}", remedy)


def _unbroken(text: str) -> str:
    """Return a text that can be written as UTF-8.

    Raises:
        WrongValue: If it holds half of a surrogate pair, as badly cut JSON does.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"the text holds half a character at position {error.start}"
        raise WrongValue(problem, "Write the text again, whole") from error
    return text


def _split(text: str) -> tuple[str | ImageSlot, ...]:
    """Split a string at its placeholders.

    The line break after those that it begins with belongs to them: how an image in front is set
    off from the question is the business of a model's template.
    """
    pieces: list[str | ImageSlot] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            pieces.append(ImageSlot())
            if all(isinstance(before, ImageSlot) for before in pieces):
                piece = LINE_BREAK.sub("", piece, count=1)
        if piece:
            pieces.append(piece)
    return tuple(pieces)
