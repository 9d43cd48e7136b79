"""Fields that the formats share: prompts, answers, scores and pictures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import DataError, Problem
from ...records import SCORE_MISSING, Domain, ImageRef, ImageSlot, Message, PreferenceRow, Response
from ..images import image_refs
from . import Context

__all__ = [
    "Attempts",
    "answer_text",
    "domain_of",
    "problem",
    "prompt_messages",
    "read_images",
    "read_number",
    "read_score",
    "row_id",
]

PLACEHOLDER = "<image>"
"""What stands for a picture in a plain prompt, whatever the model's own token is."""


class Attempts:
    """Reads one field after the other and keeps the problems of all of them."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.problems: list[Problem] = []
        self.unread: set[str] = set()

    def read(self, name: str, function: Callable[..., Any], *args: Any, default: Any = None) -> Any:
        """Returns `function(*args)`, or the default where the field of that name is wrong."""
        try:
            return function(*args)
        except DataError as error:
            self.problems.extend(error.problems)
            self.unread.add(name)
            return default

    def finish(self, **attributes: Any) -> PreferenceRow:
        """Returns the row with these attributes.

        Raises:
            DataError: With everything that is wrong: what could not be read, what the row finds
                in the fields that could, and what later checks would say of a good row.
        """
        try:
            row = PreferenceRow(source=self.context.source, where=self.context.where, **attributes)
        except DataError as error:
            # a default stands where a field could not be read: what is wrong with it is no finding
            hidden = {*self.unread, *(["images"] if "prompt" in self.unread else [])}
            places = {_place(self.context, name) for name in hidden}
            self.problems.extend(p for p in error.problems if p.where not in places)
        else:
            if not self.problems:
                return row
        self._read_pictures(attributes["images"])
        self._miss_scores(attributes["responses"])
        raise DataError(self.problems)

    def _read_pictures(self, images: Sequence[ImageRef]) -> None:
        for image in images:
            self.read("images", image.open)

    def _miss_scores(self, responses: Sequence[Response]) -> None:
        for response in responses if self.context.needs_scores else ():
            name = response.score_field
            if response.score is None and not {name, "responses"} & self.unread:
                self.problems.append(problem(self.context, name, *SCORE_MISSING))


def problem(context: Context, name: str, found: str, remedy: str) -> Problem:
    """Returns a problem with one field of a record."""
    return Problem(_place(context, name), found, remedy)


def _place(context: Context, name: str) -> str:
    return f"{context.where}, field '{name}'"


def row_id(record: Mapping[str, Any], context: Context) -> str:
    """Returns the record's own id, or one made of source and row number."""
    given = record.get("id")
    return f"{context.source}:{context.number}" if given is None else str(given)


def read_images(record: Mapping[str, Any], context: Context) -> tuple[ImageRef, ...]:
    """Returns the pictures of a record, from `images` or `image`."""
    name = "images" if record.get("images") is not None else "image"
    return image_refs(record.get(name), context.images, _place(context, name))


def domain_of(record: Mapping[str, Any], context: Context, images: Sequence[ImageRef]) -> Domain:
    """Returns the domain: the row's own, the source's, or told from the pictures."""
    own = record.get("domain")
    if own in ("text", "math", "multimodal"):
        domain: Domain = own
        return domain
    if own is not None:
        remedy = "Use text, math or multimodal, or leave it out"
        raise DataError(problem(context, "domain", f"the domain is {own!r}", remedy))
    return context.domain or ("multimodal" if images else "text")


def read_number(record: Mapping[str, Any], name: str, context: Context) -> float | None:
    """Returns a finite number or None where the field is missing or null."""
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(problem(context, name, f"found {value!r}", "Give a number or null"))
    if not math.isfinite(value):
        raise DataError(problem(context, name, f"found {value}", "Give a finite number"))
    return float(value)


def read_score(record: Mapping[str, Any], name: str, context: Context) -> float | None:
    """Returns a score on the scale of the run, or None where the field is missing or null."""
    score = read_number(record, name, context)
    try:
        return None if score is None else context.scale(score)
    except ValueError as error:
        remedy = "Correct the score, or declare the scale that the judge used"
        raise DataError(problem(context, name, str(error), remedy)) from error


def prompt_messages(value: Any, images: int, context: Context) -> tuple[tuple[Message, ...], bool]:
    """Returns the messages of a prompt, and whether it was a plain string.

    Where a prompt with pictures has no placeholder at all, the pictures stand in front of its
    first user message.
    """
    plain = isinstance(value, str)
    if not plain and not (isinstance(value, list | tuple) and value):
        remedy = "Give a string, or a list of {'role', 'content'} messages"
        raise DataError(problem(context, "prompt", f"found {_kind(value)}", remedy))
    turns = [{"role": "user", "content": value}] if plain else value
    messages = [_message(turn, "prompt", context) for turn in turns]
    if images and not any(message.image_slots for message in messages):
        first = next((n for n, m in enumerate(messages) if m.role == "user"), 0)
        slots = tuple(ImageSlot() for _ in range(images))
        messages[first] = Message(messages[first].role, slots + messages[first].parts)
    return tuple(messages), plain


def answer_text(value: Any, name: str, prompt: Sequence[Message], context: Context) -> str:
    """Returns the text of an answer: a string, or a conversation that ends with it.

    A conversation may repeat the prompt before the answer, as many public data sets do.
    """
    if isinstance(value, str):
        return value
    if not (isinstance(value, list | tuple) and value):
        remedy = "Give a string, or a list with the assistant's message"
        raise DataError(problem(context, name, f"found {_kind(value)}", remedy))
    turns = [_message(turn, name, context) for turn in value]
    before = [(turn.role, turn.text) for turn in turns[:-1]]
    repeated = [(turn.role, turn.text) for turn in prompt]
    if turns[-1].role != "assistant" or before not in ([], repeated, repeated[-len(before) :]):
        roles = ", ".join(turn.role for turn in turns)
        remedy = "Give the assistant's message alone, or the prompt followed by it"
        raise DataError(problem(context, name, f"found messages of {roles}", remedy))
    if turns[-1].image_slots:
        remedy = "Remove it: pictures belong to the prompt"
        raise DataError(problem(context, name, "the answer holds a picture placeholder", remedy))
    return turns[-1].text


def _message(turn: Any, name: str, context: Context) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        remedy = "Write each message as {'role': ..., 'content': ...}"
        raise DataError(problem(context, name, f"a message is {_kind(turn)}", remedy))
    content = turn.get("content")
    if isinstance(content, str):
        return Message(turn["role"], _split(content))
    if isinstance(content, list | tuple):
        return Message(turn["role"], tuple(_part(part, name, context) for part in content))
    remedy = "Give a string, or a list of {'type': 'text' | 'image'} parts"
    raise DataError(problem(context, name, f"a message's content is {_kind(content)}", remedy))


def _part(part: Any, name: str, context: Context) -> str | ImageSlot:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return ImageSlot()
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    remedy = "Write {'type': 'text', 'text': ...} or {'type': 'image'}"
    raise DataError(problem(context, name, f"a part of a message is {part!r}", remedy))


def _split(text: str) -> tuple[str | ImageSlot, ...]:
    """Splits a string at its placeholders; the line break after one belongs to it."""
    pieces: list[str | ImageSlot] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            pieces.append(ImageSlot())
        cleaned = piece.removeprefix("\n") if number else piece
        if cleaned:
            pieces.append(cleaned)
    return tuple(pieces)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} ({str(value)[:60]!r})"
