"""Reads a record field by field and keeps the problems of all of them; every format uses it."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
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
from ..images import image_refs, is_no_image
from ..wrong import WrongValue, brief
from . import Context
from ._messages import Prompt, answer_of, describe, is_empty, prompt_of, tools_of

__all__ = ["COMMON", "IMAGES", "SCORES", "RowReader"]

IMAGES = frozenset({"images", "image"})
COMMON = frozenset({"id", "domain", "weight", "tools", "system"}) | IMAGES
"""Columns that every format reads where they are there."""
SCORES = frozenset({"score_chosen", "score_rejected"})

MAX_ID = 500
"""Characters of an id that is not a string."""

REFUSED = {
    "rejected_images": (
        "other images for the rejected answer are not understood yet",
        "Remove the column: both answers see the images of the prompt",
    ),
    "video": ("videos are not understood yet", "Remove the row"),
    "videos": ("videos are not understood yet", "Remove the row"),
    "audios": ("sound is not understood yet", "Remove the row"),
}
"""Columns that would change what an answer means, and are refused rather than passed over."""


class RowReader:
    """Reads one record.

    A field that cannot be read is noted with its place, and something harmless takes its place, so
    that all problems of a row are told at once.

    Args:
        record: The record.
        context: Where it stands, and the settings of its source.
        images: Columns that may hold the images; the first that does is read.
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
        self.asked = Prompt((), True)
        self.tools = ""

    # ---- fields ----

    def get(self, name: str) -> Any:
        """Return the value of a column, None where it is missing."""
        return self.record.get(name)

    def prompt(self, name: str = "prompt", value: Any = None) -> tuple[Message, ...]:
        """Read the prompt from a column, or from a value made of it.

        The column `system` goes in front of it.
        """
        self.prompt_field = name
        given = self.get(name) if value is None else value
        arrow = self.context.arrow
        self.asked = self._read(name, prompt_of, given, default=self.asked, arrow=arrow)
        self.tools = self._read("tools", tools_of, self.get("tools"), default="", arrow=arrow)
        self.asked = self._with_system(self.asked)
        return self.asked.messages

    def _with_system(self, prompt: Prompt) -> Prompt:
        """Return the prompt with the text of the column `system` as its first message."""
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
            problem = "the prompt begins with another system message"
            self.note("system", problem, "Keep one of the two")
        return prompt

    def dialogues(self, *names: str) -> None:
        """Extend the prompt by the turns that all responses begin with, as TRL does.

        Responses may be whole dialogues. The turns that they share become the prompt if they hold
        the prompt at their beginning or at their end; otherwise it stays as it is.

        Args:
            names: The columns of the responses.
        """
        given = [self.get(name) for name in names]
        if not all(isinstance(one, list | tuple) and len(one) > 1 for one in given):
            return
        try:
            dialogues = [prompt_of(one, arrow=self.context.arrow).messages for one in given]
        except WrongValue:
            return  # reading the responses says what is wrong with them
        shared = _shared_turns(dialogues)
        prompt, length = self.asked.messages, len(self.asked.messages)
        if len(shared) <= length:
            return
        spoken = [(turn.role, turn.text) for turn in shared]
        turns = [(turn.role, turn.text) for turn in prompt]
        for start in dict.fromkeys((0, len(shared) - length)):
            if spoken[start : start + length] == turns:
                messages = (*shared[:start], *prompt, *shared[start + length :])
                images = self.asked.images
                if not images and all(map(_holds_no_image, map(self.get, self.image_columns))):
                    images = prompt_of(list(given[0])[: len(shared)]).images
                self.asked = Prompt(messages, False, images)
                return

    def answer(self, name: str, value: Any = None) -> str:
        """Return the text of an answer, from a column or a value."""
        given = self.get(name) if value is None else value
        text: str = self._read(name, answer_of, given, self.asked.messages, default=f"(no {name})")
        return text

    def score(self, name: str, value: Any = None) -> float | None:
        """Return a score on the scale of the run, None where it is missing or null."""
        number = self.number(name, value)
        try:
            return None if number is None else self.context.scale(number)
        except ValueError as error:
            remedy = "Correct the score, or declare the scale that the judge used"
            self.note(name, str(error), remedy)
            return None

    def number(self, name: str, value: Any = None) -> float | None:
        """Return a finite number, None where it is missing or null."""
        given = self.get(name) if value is None else value
        number: float | None = self._read(name, _finite, given)
        return number

    def response(
        self, name: str, score: str = "", *, text: Any = None, given: Any = None
    ) -> Response:
        """Return an answer with its score.

        Args:
            name: Its column.
            score: The column of its score, none for answers that nobody scored.
            text: The answer, where it is not the value of the column.
            given: The score, likewise.
        """
        answer = self.answer(name, text)
        return Response(answer, self.score(score, given) if score else None, name, score)

    def note(self, name: str, found: str, remedy: str) -> None:
        """Keep a problem with a field."""
        self.problems.append(Problem(self.place(name), found, remedy))
        self.failed.add(name)

    def place(self, name: str) -> str:
        """Says where a field stands, by the name it has in the file."""
        column, dot, rest = name.partition(".")
        base, bracket, index = column.partition("[")
        own = self.context.columns.get(base, base)
        return f"{self.context.where}, field '{own}{bracket}{index}{dot}{rest}'"

    # ---- the row ----

    def pair(self, chosen: Response, rejected: Response) -> PreferenceRow:
        """Return the row of one given pair."""
        return self.row((chosen, rejected), (Pair(0, 1, self.weight()),))

    def ranked(self, responses: Sequence[Response]) -> PreferenceRow:
        """Return the row of several answers, with the pairs that the source makes of them."""
        answers = tuple(responses)
        weight = self.weight()
        return self.row(answers, [Pair(*pair, weight) for pair in self.context.pairing(answers)])

    def row(self, responses: Sequence[Response], pairs: Sequence[Pair] = ()) -> PreferenceRow:
        """Return the row.

        Raises:
            DataError: With everything that is wrong: what could not be read, what the row finds
                in the fields that could, and what later checks would say of a good row.
        """
        images, domain = self._around()
        return self._finished(images, domain, tuple(responses), tuple(pairs))

    def stop(self) -> NoReturn:
        """Gives up a record of which so little could be read that it makes no row.

        Raises:
            DataError: With everything that is wrong with the rest of it, too.
        """
        images, _ = self._around()
        self._read_images(images)
        raise DataError(self.problems)

    def _around(self) -> tuple[tuple[ImageRef, ...], Domain]:
        """Return what stands beside prompt and answers, and refuses what is not understood."""
        images = self._images()
        domain = self._domain(images)
        for name, (found, remedy) in REFUSED.items():
            if not is_empty(self.get(name)):
                self.note(name, found, remedy)
        return images, domain

    def _images(self) -> tuple[ImageRef, ...]:
        """Return the images of the row: of a column, or those inside the parts of the prompt."""
        places = [name for name in self.image_columns if not _holds_no_image(self.get(name))]
        places += [self.prompt_field] if self.asked.images else []
        self.images_field = places[0] if places else self.image_columns[0]
        if len(places) > 1:
            found_twice = f"there are images in {' and in '.join(places)}"
            self.note(self.images_field, found_twice, "Give the images in one place")
        inside = self.images_field == self.prompt_field
        value = list(self.asked.images) if inside else self.get(self.images_field)
        found: tuple[ImageRef, ...] = self._read(
            self.images_field,
            image_refs,
            value,
            self.context.images,
            self.place(self.images_field),
            default=(),
        )
        return found

    def _finished(
        self,
        images: tuple[ImageRef, ...],
        domain: Domain,
        responses: tuple[Response, ...],
        pairs: tuple[Pair, ...],
    ) -> PreferenceRow:
        prompt = self._without_response(self.asked, responses).with_slots(len(images))
        try:
            row = PreferenceRow(
                id=self._id(),
                domain=domain,
                source=self.context.source,
                where=self.context.where,
                messages=prompt.messages,
                images=images,
                responses=responses,
                pairs=pairs,
                raw=prompt.raw,
                tools=self.tools,
            )
        except DataError as error:
            self.problems += self._by_names_of_the_file(error.problems)
        else:
            if not self.problems:
                return row
        self._read_images(images)
        self._miss_scores(responses)
        raise DataError(self.problems)

    def _without_response(self, prompt: Prompt, responses: Sequence[Response]) -> Prompt:
        """Return the prompt without a last turn that is one of the responses.

        Data sets keep whole conversations beside chosen and rejected. A last assistant turn that is
        no response would be followed by a second one, which no template is made for.
        """
        last = prompt.messages[-1] if prompt.messages else None
        unread = {self.prompt_field, *(response.field for response in responses)} & self.failed
        if last is None or last.role != "assistant" or unread:
            return prompt
        if len(prompt.messages) > 1 and last.text in [response.text for response in responses]:
            return dataclasses.replace(prompt, messages=prompt.messages[:-1])
        problem = (
            "the prompt ends with an assistant message, and the responses would be a second one"
        )
        remedy = "End the prompt with the user's message, or remove its last message"
        self.note(self.prompt_field, problem, remedy)
        return prompt

    def _by_names_of_the_file(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return what the row found, by the names of the file; not what it found in defaults."""
        names = {"prompt": self.prompt_field, "images": self.images_field}
        hidden = {*self.failed, *([self.images_field] if self.prompt_field in self.failed else [])}
        if REFUSED.keys() & self.failed:  # placeholders may stand for what is not understood
            hidden |= {self.prompt_field, self.images_field}
        result = []
        for problem in problems:
            name = problem.where.rsplit("'", 2)[-2]
            name = names.get(name, name)
            if name not in hidden:
                result.append(Problem(self.place(name), problem.message, problem.remedy))
        return result

    def _read_images(self, images: Sequence[ImageRef]) -> None:
        for image in images:
            try:
                image.open()
            except DataError as error:
                self.problems += error.problems

    def _miss_scores(self, responses: Sequence[Response]) -> None:
        for response in responses if self.context.needs_scores else ():
            name = response.score_field or f"{response.field}.score"
            if response.score is None and not {name, "responses"} & self.failed:
                self.problems.append(Problem(self.place(name), *SCORE_MISSING))

    def _id(self) -> str:
        given = self.get("id")
        if given is None:
            return self.context.id
        return given if isinstance(given, str) else brief(given, MAX_ID)

    def weight(self) -> float:
        """Return the weight of the row's pairs."""
        weight = self.number("weight")
        return 1.0 if weight is None else weight

    def _domain(self, images: Sequence[ImageRef]) -> Domain:
        """Return the domain: the row's own, the source's, or told from the images."""
        own = self.get("domain")
        found: Domain = self.context.domain or ("multimodal" if images else "text")
        if own is None:
            return found
        if not (isinstance(own, str) and own in DOMAINS):
            remedy = "Use text, math or multimodal, or leave it out"
            text = repr(own)[:80] if isinstance(own, str) else brief(own)
            self.note("domain", f"the domain is {text}", remedy)
            return found
        domain: Domain = own
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
        except WrongValue as error:
            self.note(name, error.message, error.remedy)
            return default


def _holds_no_image(value: Any) -> bool:
    """Return whether a column of images is empty, or holds entries for no image alone."""
    if isinstance(value, list | tuple):
        return all(map(_holds_no_image, value))
    return is_no_image(value)


def _shared_turns(dialogues: Sequence[Sequence[Message]]) -> Sequence[Message]:
    """Return the turns that all dialogues begin with; the last turn of each is a response."""
    shortest = min(dialogues, key=len)
    limit = len(shortest) - 1
    length = next(
        (n for n in range(limit) if any(one[n] != shortest[n] for one in dialogues)), limit
    )
    return shortest[:length]


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Number | Decimal):
        text = repr(value) if isinstance(value, str | bool) else brief(value, 80)
        raise WrongValue(f"found {text}"[:80], "Give a number or null")
    try:
        number = float(cast("float", value))  # a complex number is a Number, too: TypeError
    except (OverflowError, TypeError, ValueError) as error:
        raise WrongValue(f"found {brief(value, 40)}", "Give a finite number") from error
    if not math.isfinite(number):
        raise WrongValue(f"found {number}", "Give a finite number")
    return number
