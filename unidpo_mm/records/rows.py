"""Rows of preference data: a prompt with its media, responses and preferences."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import DataError, Problem
from ..reasoning import strip_reasoning
from .messages import MEDIA_KINDS, ROLES, ImageRef, Message
from .videos import VideoRef

__all__ = [
    "DOMAINS",
    "NO_RESPONSE",
    "SCORE_MISSING",
    "Domain",
    "Label",
    "Pair",
    "PreferenceRow",
    "Reasoning",
    "Response",
    "Unit",
    "chosen_of",
]

Domain = Literal["text", "math", "multimodal"]
DOMAINS: tuple[Domain, ...] = ("text", "math", "multimodal")
NO_RESPONSE = "(none yet)"
"""Text of the response of a row that is only a prompt, since a row needs one."""
Unit = Literal["pair", "response"]
"""The kind of units that a loss averages over."""
Reasoning = Literal["keep", "strip"]
"""How to treat a response that a chat template would change, see `PreferenceRow`."""
RESPONSE_DIGEST = 16
"""Hexadecimal digits of the SHA-256 of a response in the id of a pair or response."""
SCORE_MISSING = (
    "the score is missing",
    "Add a finite score to every response, set the source's scores.missing to a quality weight such"
    " as 0.5 (loss uni_dpo), or use a loss that needs no scores (dpo, simpo)",
)
"""Message and remedy of the problem that a row lacks a score which the loss needs."""


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
        good: `None` for a preference. In rows for losses of labeled responses, see
            `PreferenceRow.for_labels`: whether the response `chosen` is good; `rejected` is then
            a mismatched response, one to another prompt.
    """

    chosen: int
    rejected: int
    weight: float = 1.0
    row_id: str = dataclasses.field(default="", compare=False)
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a single response.

    Attributes:
        response: Index into the responses of the row.
        good: Whether the response is good.
        weight, row_id: As in `Pair`.
    """

    response: int
    good: bool
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
        other_images: As many other images, with which the chosen responses are compared with the
            same responses to `images`; empty if they are not.
        responses: At least one response.
        pairs: Preferences; empty only for losses with unit ``response`` or of labeled responses.
        labels: Labels of single responses.
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
    other_images: tuple[ImageRef, ...] = ()
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...] = ()
    labels: tuple[Label, ...] = ()
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
        """The images and videos of the prompt: the images, followed by the videos."""
        return (*self.images, *self.videos)

    @property
    def all_media(self) -> tuple[ImageRef | VideoRef, ...]:
        """The media of the prompt, followed by the other images."""
        return (*self.media, *self.other_images)

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
        if self.other_images and len(self.other_images) != len(self.images):
            problem = f"{len(self.other_images)} other image(s) for {len(self.images)} image(s)"
            yield self._problem("rejected_images", problem, "Use as many as images")

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
            if text == self.responses[pair.rejected].text and pair.good is None:
                names = self.response_field(pair.chosen), self.response_field(pair.rejected)
                problem = f"{' and '.join(names)} are the same response ({_short(text)})"
                yield self._problem(
                    names[0], problem, "Use two different responses, or remove the row"
                )
        for label in self.labels:
            if label.response not in range(len(self.responses)):
                problem = f"a label refers to response {label.response}"
                remedy = f"Use indices from 0 to {len(self.responses) - 1}"
                yield self._problem("labels", problem, remedy)
        for kind, units in (("pair", self.pairs), ("label", self.labels)):
            for unit in units:
                if not (math.isfinite(unit.weight) and unit.weight >= 0):
                    problem = f"the weight of a {kind} is {unit.weight}"
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
        Pairs of one row whose texts are equal have the same id. The mismatched response of a label
        is not part of its id.
        """
        name, chosen = pair.row_id or self.id, self._digest(pair.chosen)
        if pair.good is not None:
            return f"{name}:{chosen}:{'good' if pair.good else 'bad'}"
        return f"{name}:{chosen}:{self._digest(pair.rejected)}"

    def response_id(self, number: int) -> str:
        """Return the id of a response: the id of this row and a digest of the response."""
        return f"{self.id}:{self._digest(number)}"

    def _digest(self, number: int) -> str:
        text = self.responses[number].text.encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:RESPONSE_DIGEST]

    def targets(self) -> tuple[int, ...]:
        """Return the indices of the responses that a loss with unit ``response`` trains on.

        These are the chosen responses and those with a good label, each once; without pairs and
        labels the response with the highest score, or the first one.
        """
        if self.pairs or self.labels:
            pairs = (pair for pair in self.pairs if pair.good is not False)
            chosen = {pair.chosen for pair in pairs if pair.weight > 0}
            good = {label.response for label in self.labels if label.good and label.weight > 0}
            return tuple(sorted(chosen | good))
        scores = [-math.inf if item.score is None else item.score for item in self.responses]
        return (scores.index(max(scores)),)

    def without_unused(self) -> "PreferenceRow":
        """Return the row without the responses that are in no pair and have no label.

        Without pairs and labels, the row stays as it is.
        """
        used = {number for pair in self.pairs for number in (pair.chosen, pair.rejected)}
        used |= {label.response for label in self.labels}
        if len(used) in (0, len(self.responses)):
            return self
        numbers = {old: new for new, old in enumerate(sorted(used))}
        return dataclasses.replace(
            self,
            responses=tuple(
                dataclasses.replace(
                    self.responses[number],
                    field=self.response_field(number),
                    score_field=self._score_name(number),
                )
                for number in numbers
            ),
            pairs=tuple(
                dataclasses.replace(
                    pair, chosen=numbers[pair.chosen], rejected=numbers[pair.rejected]
                )
                for pair in self.pairs
            ),
            labels=tuple(
                dataclasses.replace(label, response=numbers[label.response])
                for label in self.labels
            ),
        )

    def for_responses(self) -> "PreferenceRow":
        """Return the row with only its target responses, for losses with unit ``response``."""
        kept = tuple(self.responses[number] for number in self.targets())
        return dataclasses.replace(self, responses=kept, pairs=(), labels=(), other_images=())

    def with_other_images(self) -> "PreferenceRow":
        """Return the row of the chosen responses to the other images, without pairs."""
        kept = tuple(self.responses[number] for number in chosen_of(self.pairs))
        return dataclasses.replace(
            self, images=self.other_images, other_images=(), responses=kept, pairs=(), labels=()
        )

    def for_labels(self, mismatched: Response | None) -> "PreferenceRow":
        """Return the row for losses of labeled responses.

        It has a pair for each label, and two for each preference, whose chosen response is good and
        whose rejected response is bad.

        Args:
            mismatched: A response to another prompt, which is added to the responses and compared
                with the labeled ones; `None` if the loss uses none.
        """
        if any(pair.good is not None for pair in self.pairs):
            return self  # it is such a row already
        labels = [*self.labels]
        for pair in self.pairs:
            labels.append(Label(pair.chosen, True, pair.weight, pair.row_id))
            labels.append(Label(pair.rejected, False, pair.weight, pair.row_id))
        last = len(self.responses)
        return dataclasses.replace(
            self,
            responses=self.responses if mismatched is None else (*self.responses, mismatched),
            pairs=tuple(
                Pair(
                    chosen=label.response,
                    rejected=label.response if mismatched is None else last,
                    weight=label.weight,
                    row_id=label.row_id,
                    good=label.good,
                )
                for label in labels
            ),
            labels=(),
            other_images=(),
        )


def chosen_of(pairs: Iterable[Pair]) -> tuple[int, ...]:
    """Return the indices of the responses that are chosen in a pair, each once."""
    return tuple(sorted({pair.chosen for pair in pairs}))


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
