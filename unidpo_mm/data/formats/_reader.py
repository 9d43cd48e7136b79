"""Read a record field by field and collect all problems, for every format."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import takewhile
from typing import Any, NoReturn, cast

from ...errors import DataError, Problem
from ...records import (
    DOMAINS,
    SCORE_MISSING,
    Domain,
    ImageRef,
    Message,
    Pair,
    PreferenceRow,
    Response,
)
from ..images import image_refs, is_missing
from ..invalid_value import InvalidValue, brief
from . import Context
from ._messages import Prompt, describe, is_empty, parse_prompt, parse_tools, response_text

__all__ = ["COMMON", "SCORES", "SCORES_REMEDY", "Parse", "RowReader", "parser"]

Parse = Callable[[Mapping[str, Any], Context], PreferenceRow]

COMMON = frozenset({"id", "domain", "weight", "tools", "system", "images", "image"})
"""Optional columns of every format."""
SCORES = frozenset({"score_chosen", "score_rejected"})

SCORES_REMEDY = (
    "Add a score to every response: pairs are formed from responses with different scores"
)

MAX_ID = 500
"""The maximum length of an id that is not a string."""

REFUSED = {
    "rejected_images": (
        "separate images for the rejected response are not supported yet",
        "Remove the column: the images of the prompt are used for both responses",
    ),
    "video": ("videos are not supported yet", "Remove the row"),
    "videos": ("videos are not supported yet", "Remove the row"),
    "audios": ("audio is not supported yet", "Remove the row"),
}
"""Columns that are refused instead of ignored, because they change the meaning of a row."""


class RowReader:
    """Reads one record.

    If a field is invalid, its problem is recorded and a default value is used, so that all problems
    of a row are reported together.

    Args:
        record: The record.
        context: Its location and the options of its source.
        images: Columns that may contain the images; the first one that is not empty is read.
    """

    def __init__(
        self,
        record: Mapping[str, Any],
        context: Context,
        *,
        images: Sequence[str] = ("images", "image"),
    ) -> None:
        self.record, self.context, self.image_columns = record, context, images
        self.problems: list[Problem] = []
        self.failed: set[str] = set()
        self.prompt_field, self.images_field = "prompt", images[0]
        self.prompt = Prompt((), True)
        self.tools = ""

    # ---- fields ----

    def get(self, name: str) -> Any:
        """Return the value of a column; `None` if it is missing."""
        return self.record.get(name)

    def read_prompt(self, name: str = "prompt", value: Any = None) -> None:
        """Read the prompt and the tools; the column `system` becomes the first message.

        Args:
            name: The column of the prompt.
            value: The prompt, if it is not the value of the column.
        """
        self.prompt_field = name
        value = self.get(name) if value is None else value
        arrow = self.context.arrow
        self.prompt = self._read(name, parse_prompt, value, default=self.prompt, arrow=arrow)
        self.tools = self._read("tools", parse_tools, self.get("tools"), default="", arrow=arrow)
        self.prompt = self._with_system(self.prompt)

    def _with_system(self, prompt: Prompt) -> Prompt:
        """Return the prompt with the value of the column `system` as its first message."""
        text = self.get("system")
        if is_empty(text) or not prompt.messages:
            return prompt
        if not isinstance(text, str):
            self.note("system", f"found {describe(text)}", "Use a string")
            return prompt
        first = prompt.messages[0]
        if first.role != "system":
            message = Message("system", (text,))
            return dataclasses.replace(prompt, messages=(message, *prompt.messages), raw=False)
        if first.text != text:
            problem = "the prompt starts with another system message"
            self.note("system", problem, "Remove one of the two")
        return prompt

    def extend_prompt(self, *names: str) -> None:
        """Extend the prompt with the first turns that all responses share, as TRL does.

        Responses may be complete dialogues. The turns that they share become the prompt if they
        start or end with the prompt; otherwise the prompt is not changed.

        Args:
            names: The columns of the responses.
        """
        values = [self.get(name) for name in names]
        if not all(isinstance(value, list | tuple) and len(value) > 1 for value in values):
            return
        try:
            dialogues = [parse_prompt(v, arrow=self.context.arrow).messages for v in values]
        except InvalidValue:
            return  # reported when the responses are read
        shared = _shared_turns(dialogues)
        prompt, length = self.prompt.messages, len(self.prompt.messages)
        if len(shared) <= length:
            return
        shared_turns = [(turn.role, turn.text) for turn in shared]
        prompt_turns = [(turn.role, turn.text) for turn in prompt]
        for start in dict.fromkeys((0, len(shared) - length)):
            if shared_turns[start : start + length] == prompt_turns:
                messages = (*shared[:start], *prompt, *shared[start + length :])
                images = self.prompt.images
                if not images and all(map(_has_no_image, map(self.get, self.image_columns))):
                    turns, arrow = list(values[0])[: len(shared)], self.context.arrow
                    images = parse_prompt(turns, arrow=arrow).images
                self.prompt = Prompt(messages, False, images)
                return

    def number(self, name: str, value: Any = None) -> float | None:
        """Return a finite number; `None` if it is missing or null."""
        value = self.get(name) if value is None else value
        number: float | None = self._read(name, _finite, value)
        return number

    def response(
        self, name: str, score_name: str = "", *, text: Any = None, score: Any = None
    ) -> Response:
        """Return a response with its score.

        Args:
            name: The column of the response.
            score_name: The column of its score; empty if it has none.
            text: The response, if it is not the value of the column.
            score: The score, if it is not the value of its column.
        """
        value = self.get(name) if text is None else text
        messages = self.prompt.messages
        text = self._read(name, response_text, value, messages, default=f"(no {name})")
        number = self.number(score_name, score) if score_name else None
        try:
            number = None if number is None else self.context.scale(number)
        except ValueError as error:
            self.note(
                score_name, str(error), "Correct the score, or declare the scale that was used"
            )
            number = None
        return Response(text, number, name, score_name)

    def note(self, name: str, message: str, remedy: str) -> None:
        """Record a problem of a field."""
        self.problems.append(Problem(self.place(name), message, remedy))
        self.failed.add(name)

    def place(self, name: str) -> str:
        """Return the file, row and field for messages; the field has its name in the file."""
        column, dot, rest = name.partition(".")
        base, bracket, index = column.partition("[")
        base = self.context.columns.get(base, base)
        return f"{self.context.where}, field '{base}{bracket}{index}{dot}{rest}'"

    # ---- the row ----

    def pair(self, chosen: Response, rejected: Response) -> PreferenceRow:
        """Return the row of a pair."""
        return self.row((chosen, rejected), (Pair(0, 1, self.weight()),))

    def ranked(self, responses: Sequence[Response]) -> PreferenceRow:
        """Return the row of several responses, with pairs formed from their scores."""
        weight = self.weight()
        return self.row(responses, [Pair(*p, weight) for p in self.context.pairing(responses)])

    def row(self, responses: Sequence[Response], pairs: Sequence[Pair] = ()) -> PreferenceRow:
        """Return the row.

        Raises:
            DataError: If there are problems; it also contains those that later checks would report
                if the row were valid.
        """
        images, responses = self._images(), tuple(responses)
        domain = self._domain(images)
        prompt = self._without_response(self.prompt, responses).with_slots(len(images))
        row_id = self.get("id")
        if row_id is not None and not isinstance(row_id, str):
            row_id = brief(row_id, MAX_ID)
        try:
            row = PreferenceRow(
                id=self.context.id if row_id is None else row_id,
                domain=domain,
                source=self.context.source,
                where=self.context.where,
                messages=prompt.messages,
                images=images,
                responses=responses,
                pairs=tuple(pairs),
                raw=prompt.raw,
                tools=self.tools,
            )
        except DataError as error:
            self.problems += self._with_file_names(error.problems)
        else:
            if not self.problems:
                return row
        raise self._error(images, responses)

    def stop(self) -> NoReturn:
        """Stop reading a record that lacks what a row needs.

        Raises:
            DataError: With all problems, including those of images and domain.
        """
        images = self._images()
        self._domain(images)
        raise self._error(images)

    def _error(self, images: Sequence[ImageRef], responses: Sequence[Response] = ()) -> DataError:
        """Return an error with all problems, also those of unreadable images and missing scores."""
        for image in images:
            try:
                image.open()
            except DataError as error:
                self.problems += error.problems
        for response in responses if self.context.needs_scores else ():
            name = response.score_field or f"{response.field}.score"
            if response.score is None and not {name, "responses"} & self.failed:
                self.problems.append(Problem(self.place(name), *SCORE_MISSING))
        return DataError(self.problems)

    def _images(self) -> tuple[ImageRef, ...]:
        """Return the images of the row, from a column or from the parts of the prompt.

        It also reports columns that are not supported.
        """
        fields = [name for name in self.image_columns if not _has_no_image(self.get(name))]
        fields += [self.prompt_field] if self.prompt.images else []
        self.images_field = fields[0] if fields else self.image_columns[0]
        if len(fields) > 1:
            problem = f"there are images in {' and in '.join(fields)}"
            self.note(self.images_field, problem, "Use only one of them")
        in_prompt = self.images_field == self.prompt_field
        value = list(self.prompt.images) if in_prompt else self.get(self.images_field)
        rules, place = self.context.images, self.place(self.images_field)
        images = self._read(self.images_field, image_refs, value, rules, place, default=())
        for name, (message, remedy) in REFUSED.items():
            if not is_empty(self.get(name)):
                self.note(name, message, remedy)
        return cast("tuple[ImageRef, ...]", images)

    def _without_response(self, prompt: Prompt, responses: Sequence[Response]) -> Prompt:
        """Return the prompt without its last turn if that is one of the responses.

        Some data sets have complete conversations in addition to chosen and rejected. A prompt that
        ends with another assistant turn is refused: the response would be a second assistant turn
        in a row, which chat templates do not allow.
        """
        last = prompt.messages[-1] if prompt.messages else None
        unreadable = {self.prompt_field, *(response.field for response in responses)} & self.failed
        if last is None or last.role != "assistant" or unreadable:
            return prompt
        if len(prompt.messages) > 1 and last.text in [response.text for response in responses]:
            return dataclasses.replace(prompt, messages=prompt.messages[:-1])
        problem = (
            "the prompt ends with an assistant message, so each response would be a second one"
        )
        remedy = "End the prompt with the user's message, or remove its last message"
        self.note(self.prompt_field, problem, remedy)
        return prompt

    def _with_file_names(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems of the row with the field names of the file."""
        names = {"prompt": self.prompt_field, "images": self.images_field}
        hidden = {*self.failed, *([self.images_field] if self.prompt_field in self.failed else [])}
        if REFUSED.keys() & self.failed:  # placeholders may stand for unsupported media
            hidden |= {self.prompt_field, self.images_field}
        result = []
        for problem in problems:
            name = problem.where.rsplit("'", 2)[-2]
            name = names.get(name, name)
            if name not in hidden:
                result.append(Problem(self.place(name), problem.message, problem.remedy))
        return result

    def weight(self) -> float:
        """Return the weight of the row's pairs."""
        weight = self.number("weight")
        return 1.0 if weight is None else weight

    def _domain(self, images: Sequence[ImageRef]) -> Domain:
        """Return the domain of the row, or that of its source, or the one that its images imply."""
        value = self.get("domain")
        domain: Domain = self.context.domain or ("multimodal" if images else "text")
        if isinstance(value, str) and value in DOMAINS:
            domain = value
        elif value is not None:
            text = repr(value)[:80] if isinstance(value, str) else brief(value)
            remedy = "Use text, math or multimodal, or remove the field"
            self.note("domain", f"the domain is {text}", remedy)
        return domain

    def _read(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        default: Any = None,
        **options: Any,
    ) -> Any:
        try:
            return function(*args, **options)
        except InvalidValue as error:
            self.note(name, error.message, error.remedy)
            return default


def parser(read: Callable[[RowReader], PreferenceRow], **options: Any) -> Parse:
    """Return the `parse` function of a format, which calls `read` with the reader of a record."""
    return lambda record, context: read(RowReader(record, context, **options))


def _has_no_image(value: Any) -> bool:
    """Return whether a column of images is empty or contains only empty entries."""
    if isinstance(value, list | tuple):
        return all(map(_has_no_image, value))
    return is_missing(value)


def _shared_turns(dialogues: Sequence[Sequence[Message]]) -> Sequence[Message]:
    """Return the first turns that all dialogues share; the last turn of each is a response."""
    together = zip(*(dialogue[:-1] for dialogue in dialogues), strict=False)
    return [turns[0] for turns in takewhile(lambda turns: len(set(turns)) == 1, together)]


def _finite(value: Any) -> float | None:
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
