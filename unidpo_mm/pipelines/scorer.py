"""The interface of scorers, which give scores to responses.

A scorer is a frozen dataclass, whose fields are its parameters in the recipe:

    @dataclass(frozen=True)
    class Short(Scorer):
        scale = (0.0, 1.0)
        words: int = 50

        def score(self, candidates):
            return [float(len(candidate.text.split()) <= self.words) for candidate in candidates]

    SCORER = Short
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..reasoning import strip_reasoning
from ..records import PreferenceRow

__all__ = [
    "Candidate",
    "Fault",
    "Need",
    "Score",
    "Scored",
    "Scorer",
    "ScoringContext",
    "ScoringUnit",
    "by_prompt",
]

Need = Literal["gold", "scores"]
ScoringUnit = Literal["response", "group"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A response to be scored.

    Attributes:
        id: Its id, ``PROMPT#NUMBER``.
        prompt: The prompt, with its messages and media; its responses are placeholders.
        text: The response.
        gold: The right answer to the prompt; `None` if there is none.
        scores: Name -> score by the scorers before this one; `None` after a fault.
    """

    id: str
    prompt: PreferenceRow
    text: str
    gold: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def text_without_reasoning(self) -> str:
        """The response without its reasoning, which most models were not trained to score."""
        return strip_reasoning(self.text).text.strip()


def by_prompt(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Yield the candidates of each prompt, which follow one another."""
    for _, group in itertools.groupby(candidates, key=lambda candidate: candidate.prompt.id):
        yield list(group)


@dataclass(frozen=True)
class Score:
    """A score.

    Attributes:
        value: The score.
        evidence: What it is based on, such as a judge's reply, as JSON values.
    """

    value: float
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """The reason why a response has no score; it is then in no pair.

    Attributes:
        kind: A word such as ``malformed``, by which faults are counted.
        message: What happened.
        temporary: Whether the next run tries again.
    """

    kind: str
    message: str
    temporary: bool = False


Scored = Score | Fault | float
"""The result of a scorer for a response; a number is a score without evidence."""


@dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """The resources of a scorer.

    Attributes:
        directory: Directory for files of its own, such as a cache of replies.
        scales: Name of each score before it -> lowest and highest value, if it has limits.
        batch_size: Number of responses per batch of a model.
    """

    directory: Path
    scales: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    batch_size: int = 8


@dataclass(frozen=True)
class Scorer:
    """The base class of scorers.

    Attributes:
        unit: ``response`` if the score of a response depends on nothing but the response and its
            prompt; ``group`` if it depends on the other responses to the prompt, which are then
            all passed together.
        needs: ``gold`` if prompts need a right answer; ``scores`` if it combines scores of others.
        sees_images: Whether images and videos of the prompt affect the scores. A scorer that does
            not see them is named where it scores responses about images.
        paths: Parameters that name a model: a directory, which may be relative to the recipe, or a
            name on the hub, with or without a prefix such as ``local:``.
        version: Changed with the meaning of the scores; responses are then scored again.
    """

    unit: ClassVar[ScoringUnit] = "response"
    needs: ClassVar[frozenset[Need]] = frozenset()
    sees_images: ClassVar[bool] = False
    paths: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 1
    scale: ClassVar[tuple[float, float] | None] = None
    """Lowest and highest possible score; `None` for scores without limits, such as logits. A
    subclass whose scale depends on its parameters defines a property."""

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load what is needed once, such as a model, and return the function that scores.

        By default, it is `score`.
        """
        return self.score

    def score(self, candidates: Sequence[Candidate]) -> Sequence[Scored]:
        """Return the score, or the fault, of each candidate, in order."""
        raise NotImplementedError(f"{type(self).__name__} defines neither score nor start")

    def check(self, scales: Mapping[str, tuple[float, float] | None]) -> Iterable[str]:
        """Return what is wrong with its parameters, in view of the scores before it.

        Args:
            scales: Name of each of these scores -> lowest and highest value, if it has limits.
        """
        return ()

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the cost of scoring, for `--plan`, such as ``{"judge requests": 40}``.

        Args:
            candidates: Number of responses.
            prompts: Number of prompts.
        """
        return {}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores; other scores are refused or computed again."""
        return {"version": self.version, **asdict(self)}

    def upstream(self) -> Sequence[str] | None:
        """Return the names of the scores that it combines; `None` if it combines none."""
        return None
