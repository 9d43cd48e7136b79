"""Read a record field by field and collect all problems, for every format."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, cast

from ...errors import DataError, Problem
from ...records import (
    DOMAINS,
    SCORE_MISSING,
    Domain,
    FrameSampling,
    ImageRef,
    Label,
    MediaKind,
    Message,
    Pair,
    PreferenceRow,
    Response,
    VideoRef,
)
from ..images import image_refs
from ..invalid_value import InvalidValue, brief
from ..videos import is_frame_list, video_refs
from . import Context
from ._messages import Prompt, parse_prompt, response_text
from ._values import describe, has_no_media, is_empty, parse_flag, parse_number, parse_tools

__all__ = ["COMMON", "SCORES", "SCORES_REMEDY", "VIDEO_COLUMNS", "Parse", "RowReader", "parser"]

Parse = Callable[[Mapping[str, Any], Context], PreferenceRow]

VIDEO_COLUMNS = ("videos", "video")
OTHER_IMAGES = "rejected_images"
COMMON = frozenset(
    {"id", "domain", "weight", "tools", "system", "images", "image", OTHER_IMAGES, *VIDEO_COLUMNS}
)
"""Optional columns of every format."""
SCORES = frozenset({"score_chosen", "score_rejected"})

SCORES_REMEDY = (
    "Add a score to every response: pairs are formed from responses with different scores"
)

MAX_ID = 500
"""The maximum length of an id that is not a string."""

REFUSED = dict.fromkeys(("audios", "audio"), ("audio is not supported yet", "Remove the row"))
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
        self.prompt_field, self.images_field, self.videos_field = "prompt", images[0], "videos"
        self.video_marks = not all(map(has_no_media, map(record.get, VIDEO_COLUMNS)))
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
        self.prompt = self._read(
            name,
            parse_prompt,
            value,
            default=self.prompt,
            arrow=arrow,
            video_marks=self.video_marks,
        )
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

    def dialogue(self, value: Any) -> Prompt:
        """Return the turns of a dialogue and their media; raise `InvalidValue` if it is invalid."""
        return parse_prompt(value, arrow=self.context.arrow, video_marks=self.video_marks)

    def number(self, name: str, value: Any = None) -> float | None:
        """Return a finite number; `None` if it is missing or null."""
        value = self.get(name) if value is None else value
        number: float | None = self._read(name, parse_number, value)
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
        text = self._read(
            name,
            response_text,
            value,
            messages,
            default=f"(no {name})",
            video_marks=self.video_marks,
        )
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

    def labeled(self, response: Response, label: str) -> PreferenceRow:
        """Return the row of a single response with a label.

        Args:
            response: The response.
            label: The column of the label: true for a good response, false for a bad one.
        """
        good = self._read(label, parse_flag, self.get(label), default=True)
        return self.row((response,), labels=(Label(0, good, self.weight()),))

    def row(
        self,
        responses: Sequence[Response],
        pairs: Sequence[Pair] = (),
        labels: Sequence[Label] = (),
    ) -> PreferenceRow:
        """Return the row.

        Raises:
            DataError: If there are problems; it also contains those that later checks would report
                if the row were valid.
        """
        images, videos, responses = self._images(), self._videos(), tuple(responses)
        other = self._other_images()
        domain = self._domain(*images, *videos)
        prompt = self._without_response(self.prompt, responses)
        prompt = prompt.with_slots(len(images), len(videos))
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
                videos=videos,
                other_images=other,
                responses=responses,
                pairs=tuple(pairs),
                labels=tuple(labels),
                raw=prompt.raw,
                tools=self.tools,
            )
        except DataError as error:
            self.problems += self._with_file_names(error.problems)
        else:
            if not self.problems:
                return row
        raise self._error(images, videos, responses)

    def stop(self) -> NoReturn:
        """Stop reading a record that lacks what a row needs.

        Raises:
            DataError: With all problems, including those of images and domain.
        """
        images, videos = self._images(), self._videos()
        self._domain(*images, *videos)
        raise self._error(images, videos)

    def _error(
        self,
        images: Sequence[ImageRef],
        videos: Sequence[VideoRef],
        responses: Sequence[Response] = (),
    ) -> DataError:
        """Return an error with all problems, also those of unreadable media and missing scores."""
        few_frames = FrameSampling(max_frames=2)
        uses = [image.open for image in images]
        uses += [partial(video.sample, few_frames) for video in videos]
        for use in uses:
            try:
                use()
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
        self.images_field, value = self._media("image", self.image_columns, self.prompt.images)
        rules, place = self.context.images, self.place(self.images_field)
        images = self._read(self.images_field, image_refs, value, rules, place, default=())
        for name, (message, remedy) in REFUSED.items():
            if not is_empty(self.get(name)):
                self.note(name, message, remedy)
        return cast("tuple[ImageRef, ...]", images)

    def _other_images(self) -> tuple[ImageRef, ...]:
        """Return the other images of the row, from their column."""
        if has_no_media(self.get(OTHER_IMAGES)):
            return ()
        rules, place = self.context.images, self.place(OTHER_IMAGES)
        images = self._read(
            OTHER_IMAGES, image_refs, self.get(OTHER_IMAGES), rules, place, default=()
        )
        return cast("tuple[ImageRef, ...]", images)

    def _videos(self) -> tuple[VideoRef, ...]:
        """Return the videos of the row, from a column or from the parts of the prompt."""
        self.videos_field, value = self._media("video", VIDEO_COLUMNS, self.prompt.videos)
        if self.videos_field == "video" and is_frame_list(value):
            value = [value]
        rules, place = self.context.images, self.place(self.videos_field)
        videos = self._read(self.videos_field, video_refs, value, rules, place, default=())
        return cast("tuple[VideoRef, ...]", videos)

    def _media(
        self, kind: MediaKind, columns: Sequence[str], in_prompt: Sequence[Any]
    ) -> tuple[str, Any]:
        """Return the name and the value of the field with the media of a kind."""
        fields = [name for name in columns if not has_no_media(self.get(name))]
        fields += [self.prompt_field] if in_prompt else []
        field = fields[0] if fields else columns[0]
        if len(fields) > 1:
            problem = f"there are {kind}s in {' and in '.join(fields)}"
            self.note(field, problem, "Use only one of them")
        return field, list(in_prompt) if field == self.prompt_field else self.get(field)

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
        media = {"images": self.images_field, "videos": self.videos_field}
        names = {"prompt": self.prompt_field, **media}
        hidden = {*self.failed, *(media.values() if self.prompt_field in self.failed else ())}
        if REFUSED.keys() & self.failed:  # placeholders may stand for unsupported media
            hidden |= {self.prompt_field, *media.values()}
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

    def _domain(self, *media: ImageRef | VideoRef) -> Domain:
        """Return the domain of the row, or that of its source, or the one that its media imply."""
        value = self.get("domain")
        domain: Domain = self.context.domain or ("multimodal" if media else "text")
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
