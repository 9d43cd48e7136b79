"""Comparisons of the responses to a prompt by a judge, in both orders: the share of wins."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import ClassVar

from unidpo_mm.inference.endpoint import ChatFailure, ChatMessage
from unidpo_mm.pipelines.scorer import (
    Candidate,
    Fault,
    Score,
    Scored,
    ScoringContext,
    ScoringUnit,
    by_prompt,
)

from ..judge.duel import Matchup
from ..judge.judges import EndpointJudge, LocalJudge
from ..judge.verdicts import POINTS, choice, comparison_prompt
from ..protocols import judge_prompt
from ._judging import (
    JudgedScorer,
    fault_of,
    message_of,
    question_of,
    unfit,
    verdicts_of,
)

WINS = {"win": 1.0, "tie": 0.5, "loss": 0.0}
"""Outcome for a response -> its share of the win."""
Verdict = str | ChatFailure


@dataclass(frozen=True)
class JudgePairs(JudgedScorer):
    """The share of comparisons with other responses to the prompt that a response wins.

    Both orders of every pair are judged, because judges prefer a position. A response wins if both
    orders say so; otherwise it is a tie, which counts half. Equal responses tie without a request.

    Attributes:
        all_pairs: Maximum number of responses to a prompt of which all pairs are compared.
        partners: Number of others that each response is compared with if there are more; even.
    """

    all_pairs: int = 8
    partners: int = 4

    unit: ClassVar[ScoringUnit] = "group"
    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)
    templates: ClassVar[Sequence[str]] = (judge_prompt("comparison"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.all_pairs < 2:
            raise ValueError("all_pairs must be at least 2")
        if self.partners < 2 or self.partners % 2:
            raise ValueError("partners must be an even number of at least 2")

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of requests: two per pair."""
        if not prompts:
            return {"judge requests": 0}
        size, larger = divmod(candidates, prompts)
        pairs = (prompts - larger) * len(self.pairs(size)) + larger * len(self.pairs(size + 1))
        return {"judge requests": 2 * pairs}

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """Return the pairs of a number of responses that are compared.

        With too many for all pairs, each response is compared with its next ones in a circle, so
        that all of them have the same number of comparisons.
        """
        if count <= max(self.all_pairs, self.partners + 1):
            return list(itertools.combinations(range(count), 2))
        return [
            (n, (n + step) % count)
            for n in range(count)
            for step in range(1, self.partners // 2 + 1)
        ]

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Return the function that asks the judge."""
        return partial(self._compared, self.load(context))

    def _compared(
        self, judge: EndpointJudge | LocalJudge, candidates: Sequence[Candidate]
    ) -> list[Scored]:
        groups = [_Group(group) for group in by_prompt(candidates)]
        pairs = [(group, pair) for group in groups for pair in self.pairs(len(group.texts))]
        requests = [
            (partial(choice, verdicts=tuple(POINTS)), partial(group.messages, *order))
            for group, pair in pairs
            for order in (pair, pair[::-1])
        ]
        verdicts = verdicts_of(judge, requests)
        for n, (group, pair) in enumerate(pairs):
            group.add(pair, *verdicts[2 * n : 2 * n + 2])
        return [result for group in groups for result in group.results()]


SCORER = JudgePairs


class _Group:
    """The responses to a prompt with the outcomes of their comparisons.

    Attributes:
        copies: Text of each different response without reasoning -> number of such responses.
        texts: These texts.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates
        self.prompt = candidates[0].prompt
        self.faults = [unfit(candidate) for candidate in candidates]
        self.answers = [candidate.text_without_reasoning for candidate in candidates]
        fit = zip(self.answers, self.faults, strict=True)
        self.copies = Counter(text for text, fault in fit if fault is None)
        self.texts = list(self.copies)
        self.question = question_of(self.prompt)
        self.shares: dict[tuple[str, str], float] = {}
        self.failures: dict[tuple[str, str], list[ChatFailure]] = {}

    def messages(self, first: int, second: int) -> list[ChatMessage]:
        """Return the question about two texts, the first of which is shown first."""
        has_images = bool(self.prompt.images)
        texts = self.texts[first], self.texts[second]
        return message_of(
            comparison_prompt(self.question, *texts, has_images=has_images), self.prompt
        )

    def add(self, pair: tuple[int, int], first: Verdict, second: Verdict) -> None:
        """Add the verdicts on two texts in this order and in the other one."""
        left, right = (self.texts[n] for n in pair)
        failures = [verdict for verdict in (first, second) if isinstance(verdict, ChatFailure)]
        if isinstance(first, ChatFailure) or isinstance(second, ChatFailure):
            self.failures[left, right] = self.failures[right, left] = failures
            return
        outcome = Matchup(id="", first=-POINTS[first], second=POINTS[second]).outcome
        self.shares[right, left] = WINS[outcome]  # outcomes are those of the second text
        self.shares[left, right] = 1 - WINS[outcome]

    def results(self) -> list[Scored]:
        """Return the share of wins of each response, or its fault."""
        return [self._result(n) if fault is None else fault for n, fault in enumerate(self.faults)]

    def _result(self, number: int) -> Scored:
        text = self.answers[number]
        failures = [f for pair, items in self.failures.items() if pair[0] == text for f in items]
        rivals = {pair[1]: share for pair, share in self.shares.items() if pair[0] == text}
        without = sum(pair[0] == text for pair in self.failures)
        if failures:
            fault = fault_of(failures)
            if fault.temporary or len(rivals) <= without:
                return fault
        outcomes = [share for rival, share in rivals.items() for _ in range(self.copies[rival])]
        outcomes += [WINS["tie"]] * (self.copies[text] - 1)
        if not outcomes:
            return Fault("alone", "there is no other response to the prompt to compare it with")
        return Score(fmean(outcomes), {"comparisons": len(outcomes)})
