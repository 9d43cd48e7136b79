"""Ratings by a language model as judge, from 1 to 10, with the images of the prompt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

from unidpo_mm.inference.endpoint import ChatFailure, ChatMessage
from unidpo_mm.pipelines.scorer import Candidate, Fault, Score, Scored, ScoringContext

from ..judge.judges import EndpointJudge, LocalJudge
from ..judge.verdicts import final_rating
from ..protocols import judge_prompt
from ._judging import (
    JudgedScorer,
    fault_of,
    message_of,
    question_of,
    shown_text,
    unfit,
    verdicts_of,
)

LABEL = "rating"
"""Word before the number in a reply."""


@dataclass(frozen=True)
class Judge(JudgedScorer):
    """A rating from 1 to 10 by a judge, which sees the images and the right answer, if any.

    A reply without a single, clear rating is a fault. Replies are kept, so that equal questions
    are asked once, also by later runs.

    Attributes:
        rubric: Criteria that replace those of this package.
        votes: Number of replies per response, whose mean is the score. If more than half of them
            have a rating, the others are ignored.
        temperature: Temperature of replies; `None` for 0 with one vote, and 1 with several, whose
            seeds differ.
    """

    rubric: str | None = None
    votes: int = 1
    temperature: float | None = None

    scale: ClassVar[tuple[float, float]] = (1.0, 10.0)
    templates: ClassVar[Sequence[str]] = tuple(
        judge_prompt(name) for name in ("rating", "rating_reference", "rating_criteria")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes < 1:
            raise ValueError("votes must be at least 1")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError("temperature must not be below 0")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("votes: with a temperature of 0, all of them are equal")
        if self.rubric is not None and not self.rubric.strip():
            raise ValueError("rubric is empty")

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of requests."""
        return {"judge requests": candidates * self.votes}

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Return the function that asks the judge."""
        temperature = self.temperature
        if temperature is None:
            temperature = 0.0 if self.votes == 1 else 1.0
        judge = self.load(context, temperature=temperature)
        return partial(self._rated, [judge.with_seed(seed) for seed in range(self.votes)])

    def _rated(
        self, judges: Sequence[EndpointJudge | LocalJudge], candidates: Sequence[Candidate]
    ) -> list[Scored]:
        scored: list[Scored | None] = [unfit(candidate) for candidate in candidates]
        open_numbers = [n for n, fault in enumerate(scored) if fault is None]
        requests = [(read_rating, partial(self._messages, candidates[n])) for n in open_numbers]
        votes = [verdicts_of(judge, requests) for judge in judges]
        for n, replies in zip(open_numbers, zip(*votes, strict=True), strict=True):
            scored[n] = score_of(replies)
        return [item for item in scored if item is not None]

    def _messages(self, candidate: Candidate) -> list[ChatMessage]:
        frame, reference, criteria = self.templates
        gold = candidate.gold
        text = frame.format(
            shown=shown_text(candidate.prompt),
            question=question_of(candidate.prompt),
            reference="" if gold is None else reference.format(gold=gold.strip()) + "\n",
            response=candidate.text_without_reasoning,
            criteria=criteria if self.rubric is None else self.rubric.strip(),
        )
        return message_of(text, candidate.prompt)


SCORER = Judge


def read_rating(reply: str) -> tuple[float, str]:
    """Return the rating of a reply, and the reply; raises `ChatFailure` without a clear one."""
    return final_rating(reply, LABEL, *Judge.scale), reply


def score_of(replies: Sequence[tuple[float, str] | ChatFailure]) -> Score | Fault:
    """Return the mean of the ratings, or a fault if one may come later or most are missing."""
    failures = [reply for reply in replies if isinstance(reply, ChatFailure)]
    ratings = [reply for reply in replies if not isinstance(reply, ChatFailure)]
    fault = fault_of(failures) if failures else None
    if fault is not None and (fault.temporary or len(ratings) <= len(failures)):
        return fault
    evidence: dict[str, Any] = {"replies": [text for _, text in ratings]}
    if len(replies) > 1:
        evidence["ratings"] = [rating for rating, _ in ratings]
    if failures:
        evidence["without rating"] = len(failures)
    return Score(fmean(rating for rating, _ in ratings), evidence)
