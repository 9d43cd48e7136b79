"""Statements of a response, each checked by a model with the images of the prompt."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, ClassVar, Literal

from unidpo_mm.inference.checkpoint import find_checkpoint
from unidpo_mm.pipelines.scorer import Candidate, Fault, Score, Scored, Scorer, ScoringContext
from unidpo_mm.records import MediaSlot, Message, PreferenceRow, Response

from ..prefs.logps import PairModel
from ..protocols import judge_prompt
from ._judging import question_of
from ._logps import Dtype, RowLogps, load_logp_model, logps_of
from ._sentences import statements

YES, NO = ("Yes", "yes", "YES"), ("No", "no", "NO")
"""Spellings of the two answers, whose probabilities are added."""
TYPICAL_CLAIMS = 5
"""Assumed number of statements per response, for the plan."""


@dataclass(frozen=True)
class Claims(Scorer):
    """How many statements of a response hold, as a model sees them with the images.

    A statement is a sentence, which questions and headings are not. The model is asked about each
    of them whether it is right, and its probability is P(yes) / (P(yes) + P(no)). No statement is
    skipped, however long the response is.

    Attributes:
        model: Directory of a model in this process, or its name on the hub; for prompts with
            images, a vision-language model.
        aggregate: ``false_count`` is minus the number of false statements, ``true_share`` the share
            of true ones, and ``mean`` the mean probability.
        threshold: Probability from which a statement counts as true.
        cap: Maximum number of false statements; more count as this number.
        dtype: Number format of the weights; ``auto`` keeps the saved one.
        chat_template_kwargs: Variables of the chat template, such as ``enable_thinking: false``.
    """

    model: str
    aggregate: Literal["false_count", "true_share", "mean"] = "false_count"
    threshold: float = 0.5
    cap: int = 20
    dtype: Dtype = "auto"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    paths: ClassVar[frozenset[str]] = frozenset({"model"})
    sees_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError("threshold must be between 0 and 1")
        if self.cap < 1:
            raise ValueError("cap must be at least 1")

    @property
    def scale(self) -> tuple[float, float]:  # type: ignore[override] # depends on the aggregate
        """From minus the cap to 0 for counts, from 0 to 1 otherwise."""
        return (-float(self.cap), 0.0) if self.aggregate == "false_count" else (0.0, 1.0)

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of forward passes, for responses of a typical number of statements."""
        name = f"forward passes with {TYPICAL_CLAIMS} statements per response"
        return {name: candidates * TYPICAL_CLAIMS}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores: the weights instead of their place."""
        settings = {"version": self.version, **asdict(self)}
        return settings | {"model": find_checkpoint(self.model).weights, "question": question()}

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load the model and return the function that scores."""
        model = load_logp_model(self.model, dtype=self.dtype, variables=self.chat_template_kwargs)
        return partial(self._checked, model, context.batch_size)

    def _checked(
        self, model: PairModel, batch_size: int, candidates: Sequence[Candidate]
    ) -> list[Scored]:
        claims = [statements(candidate.text_without_reasoning) for candidate in candidates]
        rows = [
            row
            for candidate, texts in zip(candidates, claims, strict=True)
            for row in claim_rows(candidate, texts)
        ]
        results = iter(logps_of(model, rows, batch_size=batch_size))
        return [self._score(model, texts, [next(results) for _ in texts]) for texts in claims]

    def _score(
        self, model: PairModel, texts: Sequence[str], results: Sequence[RowLogps | Fault]
    ) -> Scored:
        if not texts:
            return Fault("no statement", "the response states nothing that can be checked")
        if fault := next((result for result in results if isinstance(result, Fault)), None):
            return fault
        probabilities = [
            probability(model, result) for result in results if isinstance(result, RowLogps)
        ]
        wrong = sum(value < self.threshold for value in probabilities)
        value = {
            "false_count": -float(min(wrong, self.cap)),
            "true_share": 1 - wrong / len(texts),
            "mean": fmean(probabilities),
        }[self.aggregate]
        rounded = [round(item, 6) for item in probabilities]
        listed = [*map(list, zip(texts, rounded, strict=True))]
        return Score(value, {"statements": listed, "false": wrong})


SCORER = Claims


def question() -> str:
    """Return the template of the question about a statement."""
    return judge_prompt("statement")


def claim_rows(candidate: Candidate, texts: Sequence[str]) -> Iterator[PreferenceRow]:
    """Yield a row per statement: a question with all spellings of yes and no as responses."""
    prompt = candidate.prompt
    slots = [MediaSlot("image")] * len(prompt.images) + [MediaSlot("video")] * len(prompt.videos)
    request = question_of(prompt)
    for number, text in enumerate(texts):
        before = texts[number - 1] if number else "(none, it is the first one)"
        text_of_question = question().format(request=request, before=before, statement=text)
        yield dataclasses.replace(
            prompt,
            id=f"{candidate.id}/{number}",
            messages=(Message("user", (*slots, text_of_question)),),
            responses=tuple(Response(answer) for answer in (*YES, *NO)),
            raw=True,
            tools="",
        )


def probability(model: PairModel, result: RowLogps) -> float:
    """Return P(yes) / (P(yes) + P(no)), each the sum over its spellings."""
    logps = [
        math.fsum(tokens[: answer_length(model, ids.tolist(), answer)])
        for tokens, ids, answer in zip(
            result.tokens, result.group.response_ids, (*YES, *NO), strict=True
        )
    ]
    yes, no = _log_sum(logps[: len(YES)]), _log_sum(logps[len(YES) :])
    return 0.5 * (1 + math.tanh((yes - no) / 2))  # does not overflow


def answer_length(model: PairModel, ids: Sequence[int], answer: str) -> int:
    """Return the number of tokens of an answer, without those that end the turn."""
    lengths = range(1, len(ids) + 1)
    decode = model.adapter.decode
    return next((n for n in lengths if decode(ids[:n]).strip() == answer), len(ids))


def _log_sum(logps: Sequence[float]) -> float:
    highest = max(logps)
    return highest + math.log(math.fsum(math.exp(logp - highest) for logp in logps))
