"""Rows of preference data: a prompt with its media, responses and preferences."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import DataError, Problem
from ..reasoning import strip_reasoning
from .videos import VideoRef

__all__ = [
    "DOMAINS",
    "MEDIA_KINDS",
    "ROLES",
    "SCORE_MISSING",
    "Domain",
    "ImageRef",
    "MediaKind",
    "MediaSlot",
    "Message",
    "Pair",
    "PreferenceRow",
    "Reasoning",
    "Response",
    "Unit",
]

Domain = Literal["text", "math", "multimodal"]
DOMAINS: tuple[Domain, ...] = ("text", "math", "multimodal")
MediaKind = Literal["image", "video"]
"""Kinds of media in a prompt."""
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "video")
Unit = Literal["pair", "response"]
"""The kind of units that a loss averages over."""
Reasoning = Literal["keep", "strip"]
"""How to treat a response that a chat template would change, see `PreferenceRow`."""
RESPONSE_DIGEST = 16
"""Hexadecimal digits of the SHA-256 of a response in the id of a pair or response."""
ROLES = ("system", "user", "assistant", "tool")
SCORE_MISSING = (
    "the score is missing",
    "Add a finite score to every response, set the source's scores.missing to a quality weight such"
    " as 0.5 (loss uni_dpo), or use a loss that needs no scores (dpo, simpo)",
)
"""Message and remedy of the problem that a row lacks a score which the loss needs."""


class ImageRef(Protocol):
    """An image that is opened when it is used, so that rows stay small."""

    def open(self) -> Any:
        """Return a `PIL.Image.Image` in RGB; raise `DataError` if it cannot be read."""
        ...

    def describe(self) -> str:
        """Return a name of the image for messages."""
        ...

    def key(self) -> str:
        """Return a string that is equal for equal images."""
        ...


@dataclass(frozen=True, slots=True)
class MediaSlot:
    """The place of one image or video inside a message; the media of a kind fill them in order."""

    kind: MediaKind


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        parts: Text and media slots in reading order.
        extras: Further keys of the turn for the chat template, such as `tool_calls`, as a JSON
            object; empty if there are none.
    """

    role: str
    parts: tuple[str | MediaSlot, ...]
    extras: str = ""

    @property
    def text(self) -> str:
        """The text parts, concatenated."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def turn(self) -> dict[str, Any]:
        """Return the turn as chat templates take it, with a list of parts as its content."""
        parts = [
            {"type": part.kind} if isinstance(part, MediaSlot) else {"type": "text", "text": part}
            for part in self.parts
        ]
        extras = json.loads(self.extras) if self.extras else {}
        return {"role": self.role, "content": parts, **extras}

    def slots(self, kind: MediaKind) -> int:
        """Return the number of images, or of videos, in this message."""
        return self.parts.count(MediaSlot(kind))


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a prompt.

    Attributes:
        text: The text.
        score: Quality score from the data; `None` if it has no score.
        field: Name of its field in the file, for messages; empty to use its index.
        score_field: Name of the field of its score; empty for the default name.
    """

    text: str
    score: float | None = None
    field: str = dataclasses.field(default="", compare=False)
    score_field: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference between two responses of a row.

    Attributes:
        chosen, rejected: Indices into the responses of the row.
        weight: Weight of the pair in the loss.
        row_id: Id of the row in the data that the pair comes from; empty if the row that holds the
            pair was not joined from several ones.
    """

    chosen: int
    rejected: int
    weight: float = 1.0
    row_id: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """One prompt with its images and videos, its responses and the preferences among them.

    Attributes:
        id: Name of the row, unique within a run.
        domain: ``text``, ``math`` or ``multimodal``.
        source: Name of the data source.
        where: File and row number, for messages.
        messages: The prompt.
        images: The images, in the order of their slots in `messages`.
        videos: The videos, in the order of their slots.
        responses: At least one response.
        pairs: Preferences; empty only for losses with unit ``response``.
        raw: Whether the prompt was a plain string, which is rendered without a chat template if the
            model has none.
        tools: Tools for the chat template, as a JSON list; empty if there are none.
        template_kwargs: Variables of the chat template for this row, as a JSON object; empty if
            there are none. They override those of the run.
        reasoning: ``keep`` trains on each response exactly as it is written, even if the chat
            template would remove its reasoning; ``strip`` means that reasoning blocks have been
            removed from the responses; `None` rejects a response that the template would change.

    Raises:
        DataError: If fields are invalid, with all problems of the row.
    """

    id: str
    domain: Domain
    source: str
    where: str
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...] = ()
    raw: bool = False
    tools: str = ""
    template_kwargs: str = ""
    reasoning: Reasoning | None = None

    def __post_init__(self) -> None:
        problems = [*self._prompt_problems(), *self._response_problems(), *self._pair_problems()]
        if problems:
            raise DataError(dict.fromkeys(problems))

    @property
    def media(self) -> tuple[ImageRef | VideoRef, ...]:
        """The images, followed by the videos."""
        return (*self.images, *self.videos)

    def _prompt_problems(self) -> Iterator[Problem]:
        media = {"image": self.images, "video": self.videos}
        slots = {kind: sum(turn.slots(kind) for turn in self.messages) for kind in MEDIA_KINDS}
        has_text = any(message.text.strip() for message in self.messages)
        if not has_text and not any(slots.values()):
            yield self._problem("prompt", "the prompt is empty", "Write a prompt")
        for message in self.messages:
            if message.role not in ROLES:
                problem = f"a message has the role '{message.role}'"
                yield self._problem("prompt", problem, f"Use one of {', '.join(ROLES)}")
        for kind, count in slots.items():
            if count != len(media[kind]):
                problem = f"{len(media[kind])} {kind}(s) for {count} {kind} placeholder(s)"
                remedy = f"Use exactly one {kind} per placeholder, in the same order"
                yield self._problem(f"{kind}s", problem, remedy)

    def _response_problems(self) -> Iterator[Problem]:
        if not self.responses:
            problem, remedy = "there is no response", "Add at least one response"
            yield self._problem("responses", problem, remedy)
        for number, response in enumerate(self.responses):
            if not response.text.strip():
                problem, remedy = "the response is empty", "Write the response or remove the row"
                yield self._problem(self.response_field(number), problem, remedy)
            if response.score is not None and not math.isfinite(response.score):
                problem = f"the score is {response.score}"
                remedy = "Use a finite number, or null for no score"
                yield self._problem(self._score_name(number), problem, remedy)

    def _pair_problems(self) -> Iterator[Problem]:
        for pair in self.pairs:
            if not {pair.chosen, pair.rejected} <= set(range(len(self.responses))):
                problem = f"a pair refers to responses {pair.chosen} and {pair.rejected}"
                remedy = f"Use indices from 0 to {len(self.responses) - 1}"
                yield self._problem("pairs", problem, remedy)
                continue
            text = self.responses[pair.chosen].text
            if text == self.responses[pair.rejected].text:
                names = self.response_field(pair.chosen), self.response_field(pair.rejected)
                problem = f"{' and '.join(names)} are the same response ({_short(text)})"
                yield self._problem(
                    names[0], problem, "Use two different responses, or remove the row"
                )
            if not (math.isfinite(pair.weight) and pair.weight >= 0):
                problem = f"the weight of a pair is {pair.weight}"
                yield self._problem("weight", problem, "Use a finite number >= 0")

    def without_reasoning(self) -> "PreferenceRow":
        """Return the row with the reasoning blocks of its responses removed.

        Raises:
            DataError: If a response becomes empty, or two responses of a pair become equal.
        """
        responses = tuple(
            dataclasses.replace(item, text=strip_reasoning(item.text).text)
            for item in self.responses
        )
        try:
            return dataclasses.replace(self, responses=responses, reasoning="strip")
        except DataError as error:
            raise DataError(
                Problem(
                    problem.where,
                    f"after its reasoning is removed, {problem.message}",
                    "Set reasoning to keep for the source, or remove the row",
                )
                for problem in error.problems
            ) from error

    def response_field(self, number: int) -> str:
        """Return the name of the field that holds a response, for messages."""
        if self.responses[number].field:
            return self.responses[number].field
        if len(self.responses) == 2 and len(self.pairs) == 1:
            return "chosen" if number == self.pairs[0].chosen else "rejected"
        return f"responses[{number}]"

    def _score_name(self, number: int) -> str:
        name = self.response_field(number)
        usual = f"score_{name}" if name in ("chosen", "rejected") else f"{name}.score"
        return self.responses[number].score_field or usual

    def _problem(self, name: str, message: str, remedy: str) -> Problem:
        return Problem(f"{self.where}, field '{name}'", message, remedy)

    def missing_scores(self) -> list[Problem]:
        """Return a problem for each response of a pair that has no score."""
        paired = {number for pair in self.pairs for number in (pair.chosen, pair.rejected)}
        return [
            self._problem(self._score_name(number), *SCORE_MISSING)
            for number in sorted(paired)
            if self.responses[number].score is None
        ]

    def pair_id(self, pair: Pair) -> str:
        """Return the id of a pair: the id of its row in the data and digests of its two responses.

        The id stays the same if rows are joined or reordered, or if the row gets other responses.
        Pairs of one row whose texts are equal have the same id.
        """
        chosen, rejected = self._digest(pair.chosen), self._digest(pair.rejected)
        return f"{pair.row_id or self.id}:{chosen}:{rejected}"

    def response_id(self, number: int) -> str:
        """Return the id of a response: the id of this row and a digest of the response."""
        return f"{self.id}:{self._digest(number)}"

    def _digest(self, number: int) -> str:
        text = self.responses[number].text.encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:RESPONSE_DIGEST]

    def targets(self) -> tuple[int, ...]:
        """Return the indices of the responses that a loss with unit ``response`` trains on.

        These are the chosen responses, each once; without pairs the response with the highest
        score, or the first one.
        """
        if self.pairs:
            return tuple(sorted({pair.chosen for pair in self.pairs if pair.weight > 0}))
        scores = [-math.inf if item.score is None else item.score for item in self.responses]
        return (scores.index(max(scores)),)

    def for_responses(self) -> "PreferenceRow":
        """Return the row with only its target responses, for losses with unit ``response``."""
        kept = tuple(self.responses[number] for number in self.targets())
        return dataclasses.replace(self, responses=kept, pairs=())


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
