"""What data files become: rows with a prompt, images, responses and preferences."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import DataError, Problem
from ..reasoning import strip_reasoning

__all__ = [
    "DOMAINS",
    "ROLES",
    "SCORE_MISSING",
    "Domain",
    "ImageRef",
    "ImageSlot",
    "Message",
    "Pair",
    "PreferenceRow",
    "Reasoning",
    "Response",
]

Domain = Literal["text", "math", "multimodal"]
DOMAINS: tuple[Domain, ...] = ("text", "math", "multimodal")
Reasoning = Literal["keep", "strip"]
"""What is done with a response that a chat template would change, see `PreferenceRow`."""
ROLES = ("system", "user", "assistant", "tool")
SCORE_MISSING = (
    "the score is missing",
    "Add a finite score to every response, set the source's scores.missing to a quality weight such"
    " as 0.5 (loss uni_dpo), or use a loss that needs no scores (dpo, simpo)",
)
"""What is wrong, and what to do, where a loss needs a score that a row lacks."""


class ImageRef(Protocol):
    """An image that is opened where it is needed, so that a row stays small."""

    def open(self) -> Any:
        """Return a `PIL.Image.Image` in RGB; raises DataError when it cannot be read."""
        ...

    def describe(self) -> str:
        """Says which image this is, for messages."""
        ...

    def key(self) -> str:
        """Return a string that is equal for equal images."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSlot:
    """The place of one image inside a message; images fill the slots in order."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        parts: Text and image slots in reading order.
        extras: What else the turn holds for the chat template, such as the tools that it calls, as
            a JSON object; empty for nothing.
    """

    role: str
    parts: tuple[str | ImageSlot, ...]
    extras: str = ""

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def image_slots(self) -> int:
        """How many images belong into this message."""
        return sum(isinstance(part, ImageSlot) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer to a prompt.

    Attributes:
        text: The answer.
        score: Its external quality; None if nobody scored it.
        field: What the answer is called in its file, for messages; empty for its number.
        score_field: What its score is called there; empty for the usual name.
    """

    text: str
    score: float | None = None
    field: str = dataclasses.field(default="", compare=False)
    score_field: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: indices into the responses of its group, and the weight of the pair."""

    chosen: int
    rejected: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """One prompt with its images, its responses and the preferences among them.

    Attributes:
        id: Name of the row in messages; unique within a run.
        domain: ``text``, ``math`` or ``multimodal``.
        source: Name of the data source that the row came from.
        where: File and row number, for messages.
        messages: The prompt.
        images: Images, in the order of the slots in `messages`.
        responses: K >= 1 answers.
        pairs: Preferences; empty only for losses whose unit is the response.
        raw: The prompt was a plain string, to be rendered without a chat template where the
            model has none.
        tools: The tools that the chat template shows to the model, as a JSON list; empty for none.
        template_kwargs: Variables of the chat template for this row, as a JSON object; empty for
            none. They override those of the run.
        reasoning: ``keep`` scores each response exactly as it is written, even if the chat template
            would remove its reasoning; ``strip`` means that reasoning blocks have been removed from
            the responses; None refuses a response that the template would change.

    Raises:
        DataError: If a field breaks its invariant; all problems of the row at once.
    """

    id: str
    domain: Domain
    source: str
    where: str
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...] = ()
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

    def _prompt_problems(self) -> list[Problem]:
        problems = []
        slots = sum(message.image_slots for message in self.messages)
        if not any(message.text.strip() for message in self.messages) and slots == 0:
            problems.append(self._problem("prompt", "the prompt is empty", "Write a prompt"))
        for message in self.messages:
            if message.role not in ROLES:
                problem = f"a message has the role '{message.role}'"
                problems.append(self._problem("prompt", problem, f"Use one of {', '.join(ROLES)}"))
        if slots != len(self.images):
            problem = f"{len(self.images)} image(s) for {slots} image placeholder(s)"
            remedy = "Give exactly one image per placeholder, in the same order"
            problems.append(self._problem("images", problem, remedy))
        return problems

    def _response_problems(self) -> list[Problem]:
        problems = []
        if not self.responses:
            problem, remedy = "there is no response", "Give at least one answer"
            problems.append(self._problem("responses", problem, remedy))
        for number, response in enumerate(self.responses):
            if not response.text.strip():
                remedy = "Write the answer or remove the row"
                problems.append(self._problem(self._name(number), "the answer is empty", remedy))
            if response.score is not None and not math.isfinite(response.score):
                problem = f"the score is {response.score}"
                remedy = "Give a finite number, or leave the score out"
                problems.append(self._problem(self._score_name(number), problem, remedy))
        return problems

    def _pair_problems(self) -> list[Problem]:
        problems = []
        for pair in self.pairs:
            if not {pair.chosen, pair.rejected} <= set(range(len(self.responses))):
                problem = f"a pair names responses {pair.chosen} and {pair.rejected}"
                remedy = f"Name responses 0 to {len(self.responses) - 1}"
                problems.append(self._problem("pairs", problem, remedy))
                continue
            text = self.responses[pair.chosen].text
            if text == self.responses[pair.rejected].text:
                names = self._name(pair.chosen), self._name(pair.rejected)
                problem = f"{' and '.join(names)} are the same answer ({_short(text)})"
                remedy = "Give two different answers or remove the row"
                problems.append(self._problem(names[0], problem, remedy))
            if not (math.isfinite(pair.weight) and pair.weight >= 0):
                problem = f"the weight of a pair is {pair.weight}"
                problems.append(self._problem("weight", problem, "Give a finite number >= 0"))
        return problems

    def response_field(self, number: int) -> str:
        """Return the field that holds a response, for messages."""
        return self._name(number)

    def without_reasoning(self) -> "PreferenceRow":
        """Return the row with the reasoning blocks of its responses removed.

        Raises:
            DataError: If nothing else is left of a response, or two responses of a pair become
                equal.
        """
        responses = tuple(
            dataclasses.replace(response, text=strip_reasoning(response.text).text)
            for response in self.responses
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

    def _name(self, number: int) -> str:
        if self.responses[number].field:
            return self.responses[number].field
        if len(self.responses) == 2 and len(self.pairs) == 1:
            return "chosen" if number == self.pairs[0].chosen else "rejected"
        return f"responses[{number}]"

    def _score_name(self, number: int) -> str:
        name = self._name(number)
        usual = f"score_{name}" if name in ("chosen", "rejected") else f"{name}.score"
        return self.responses[number].score_field or usual

    def _problem(self, name: str, found: str, remedy: str) -> Problem:
        return Problem(f"{self.where}, field '{name}'", found, remedy)

    def missing_scores(self) -> list[Problem]:
        """Return a problem for each response of a pair that has no score."""
        paired = {number for pair in self.pairs for number in (pair.chosen, pair.rejected)}
        return [
            self._problem(self._score_name(number), *SCORE_MISSING)
            for number in sorted(paired)
            if self.responses[number].score is None
        ]

    def targets(self) -> tuple[int, ...]:
        """Return the responses that a loss of unit ``response`` learns from.

        The chosen answers, each once; without pairs the best scored answer, or the first one.
        """
        if self.pairs:
            return tuple(sorted({pair.chosen for pair in self.pairs if pair.weight > 0}))
        scores = [
            -math.inf if response.score is None else response.score for response in self.responses
        ]
        return (max(range(len(scores)), key=scores.__getitem__),)

    def for_responses(self) -> "PreferenceRow":
        """Return the row with its target responses alone, for losses of unit ``response``."""
        kept = tuple(self.responses[number] for number in self.targets())
        return dataclasses.replace(self, responses=kept, pairs=())


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
