"""Parse prompts and responses, which are strings or lists of messages, into messages."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from ...records import MEDIA_KINDS, MediaKind, MediaSlot, Message
from ..images import is_missing
from ..invalid_value import InvalidValue, brief
from ._values import (
    as_json,
    describe,
    is_empty,
    parse_call,
    parse_json,
    parse_tool_calls,
    without_nulls,
)

__all__ = ["Prompt", "parse_prompt", "response_text", "shared_turns"]

PLACEHOLDERS: Mapping[MediaKind, str] = {"image": "<image>", "video": "<video>"}
"""Placeholder of an image or video in a string, for all models."""
PART_KINDS: Mapping[str, MediaKind] = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
}
"""Type of a part -> the kind of its medium."""
VIDEO_PART_OPTIONS = frozenset(
    {"fps", "nframes", "min_frames", "max_frames", "video_start", "video_end"}
)
"""Keys of a part that would choose other frames than the run."""
PLACEHOLDER = re.compile("|".join(f"(?P<{kind}>{text})" for kind, text in PLACEHOLDERS.items()))
REASONING_KEYS = frozenset({"reasoning_content", "reasoning", "thinking"})
"""Keys of a message that may contain reasoning in addition to its content."""
LINE_BREAK = re.compile(r"^\r?\n")


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt.

    Attributes:
        messages: Its turns.
        raw: Whether it was a plain string.
        images, videos: The images and videos in its parts, in order.
    """

    messages: tuple[Message, ...]
    raw: bool
    images: tuple[Any, ...] = field(default=())
    videos: tuple[Any, ...] = field(default=())

    def with_slots(self, images: int, videos: int = 0) -> "Prompt":
        """Return the prompt with its media at the beginning, unless it has placeholders."""
        slots = tuple(
            MediaSlot(kind)
            for kind, count in zip(MEDIA_KINDS, (images, videos), strict=True)
            if not any(message.slots(kind) for message in self.messages)
            for _ in range(count)
        )
        if not (slots and self.messages):
            return self
        messages = list(self.messages)
        first = next((n for n, m in enumerate(messages) if m.role == "user"), 0)
        parts = slots + messages[first].parts
        messages[first] = dataclasses.replace(messages[first], parts=parts)
        return dataclasses.replace(self, messages=tuple(messages))


@dataclass
class _Reading:
    """How messages are read, and the media in their parts.

    Attributes:
        arrow: Whether the record comes from Arrow or Parquet, where a null may mean no value.
        video_marks: Whether ``<video>`` in a string is a placeholder.
        is_response: Whether the message is a response, where no string is a placeholder.
        media: Kind -> the media in the parts, in order.
    """

    arrow: bool = False
    video_marks: bool = False
    is_response: bool = False
    media: dict[MediaKind, list[Any]] = field(default_factory=lambda: {k: [] for k in MEDIA_KINDS})


def parse_prompt(value: Any, *, arrow: bool = False, video_marks: bool = False) -> Prompt:
    """Return the messages of a prompt.

    Args:
        value: A string, or a list of turns.
        arrow: Whether the record comes from Arrow or Parquet, where a null may mean no value.
        video_marks: Whether ``<video>`` is the placeholder of a video. In a row without videos it
            is text, for example the name of an element of HTML.

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
    reading = _Reading(arrow=arrow, video_marks=video_marks)
    turns = [{"role": "user", "content": value}] if plain else value
    messages = tuple(_message(turn, reading) for turn in turns)
    return Prompt(messages, plain, *(tuple(reading.media[kind]) for kind in MEDIA_KINDS))


def response_text(value: Any, prompt: Sequence[Message], *, video_marks: bool = False) -> str:
    """Return the text of a response: a string, or a conversation that ends with it.

    A conversation may repeat the prompt before the response, as many public data sets do. See
    `parse_prompt` for `video_marks`.

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
    messages = [_message(turn, _Reading(video_marks=video_marks)) for turn in context]
    messages.append(_message(last, _Reading(is_response=True)))
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
    for kind in MEDIA_KINDS:
        if response.slots(kind):
            article = "an" if kind == "image" else "a"
            problem = f"the response contains {article} {kind} placeholder"
            raise InvalidValue(problem, f"Remove it: {kind}s belong to the prompt")
    extras = parse_json(response.extras or "{}")
    for name in REASONING_KEYS & extras.keys():
        remedy = "Move it into the content, in the form of the model's template, or remove it"
        raise InvalidValue(f"the response contains '{name}' in addition to its content", remedy)
    if "tool_calls" in extras:
        remedy = "Write the response as text, with the call in the form of the model's template"
        raise InvalidValue("the response calls a tool, which is not supported yet", remedy)
    return response.text


def _message(turn: Any, reading: _Reading) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        remedy = "Write each message as {'role': ..., 'content': ...}"
        raise InvalidValue(f"a message is {describe(turn)}", remedy)
    extras = {
        name: without_nulls(value) if reading.arrow else value
        for name, value in turn.items()
        if name not in ("role", "content") and not is_empty(value)
    }
    for name, parse in (("tool_calls", parse_tool_calls), ("function_call", parse_call)):
        if name in extras:
            extras[name] = parse(extras[name])
    extras_json = as_json(extras) if extras else ""
    content = turn.get("content")
    if isinstance(content, str):
        text = _checked(content)  # in a response, <image> is ordinary text
        parts = (text,) if reading.is_response else _split(text, reading)
        return Message(turn["role"], parts, extras_json)
    if isinstance(content, list | tuple):
        return Message(turn["role"], tuple(_part(part, reading) for part in content), extras_json)
    if content is None and "tool_calls" in extras:
        return Message(turn["role"], (), extras_json)
    remedy = "Use a string, or a list of {'type': 'text' | 'image' | 'video'} parts"
    raise InvalidValue(f"a message's content is {describe(content)}", remedy)


def _part(part: Any, reading: _Reading) -> str | MediaSlot:
    name = part.get("type") if isinstance(part, Mapping) else None
    kind = PART_KINDS.get(name) if isinstance(name, str) else None
    if kind is not None:
        keys = (kind, "path", "url", f"{kind}_url", "base64")
        item = next((part[key] for key in keys if not is_missing(part.get(key))), None)
        if item is not None:
            url = item.get("url") if isinstance(item, Mapping) else None
            reading.media[kind].append(item if url is None else url)
        if kind == "video":
            _refuse_video_options(part)
        return MediaSlot(kind)
    if name == "text" and isinstance(part.get("text"), str):
        return _checked(part["text"])
    if name == "audio":
        raise InvalidValue("a part of a message is audio, which is not supported yet", "Remove it")
    remedy = "Write {'type': 'text', 'text': ...}, {'type': 'image'} or {'type': 'video'}"
    raise InvalidValue(f"a part of a message is {brief(part, 80)}", remedy)


def _refuse_video_options(part: Mapping[str, Any]) -> None:
    """Refuse a part that chooses other frames than the run does."""
    for name in sorted(VIDEO_PART_OPTIONS & part.keys()):
        if part[name] is not None:
            remedy = (
                "Remove it and set data.video_fps and data.video_max_frames, or write the frames "
                "of the video as a list of images"
            )
            raise InvalidValue(f"a video has the option '{name}'", remedy)


def _checked(text: str) -> str:
    """Return a text if it can be encoded as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"the text contains an unpaired surrogate at position {error.start}"
        raise InvalidValue(problem, "Write the text again, with complete characters") from error
    return text


def _split(text: str, reading: _Reading) -> tuple[str | MediaSlot, ...]:
    """Split a string at its placeholders.

    The line break after the placeholders at the beginning is dropped, because the model's template
    decides how images and videos are separated from the question.
    """
    pieces: list[str | MediaSlot] = []
    start = 0
    for mark in PLACEHOLDER.finditer(text):
        is_video = mark["video"] is not None
        if is_video and not reading.video_marks:
            continue
        _append(pieces, text[start : mark.start()])
        pieces.append(MediaSlot("video" if is_video else "image"))
        start = mark.end()
    _append(pieces, text[start:])
    return tuple(pieces)


def _append(pieces: list[str | MediaSlot], text: str) -> None:
    if pieces and all(isinstance(piece, MediaSlot) for piece in pieces):
        text = LINE_BREAK.sub("", text, count=1)
    if text:
        pieces.append(text)


def shared_turns(dialogues: Sequence[Sequence[Message]]) -> Sequence[Message]:
    """Return the first turns that all dialogues share; the last turn of each is a response."""
    together = zip(*(dialogue[:-1] for dialogue in dialogues), strict=False)
    return [turns[0] for turns in takewhile(lambda turns: len(set(turns)) == 1, together)]
