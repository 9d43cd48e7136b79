"""The share of the responses to a prompt that have the same final answer."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from unidpo_mm.pipelines.scorer import Candidate, Score, Scored, Scorer, ScoringUnit, by_prompt

from ._answers import AnswerKind, final_answer


@dataclass(frozen=True)
class Agreement(Scorer):
    """The share of the responses to a prompt that have the same final answer as a response.

    Without a right answer, the most common one is the best guess (Wang et al., 2023, arXiv
    2203.11171).

    Attributes:
        answer: Kind of the answer.
    """

    answer: AnswerKind = "math"

    unit: ClassVar[ScoringUnit] = "group"
    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def score(self, candidates: Sequence[Candidate]) -> Sequence[Scored]:
        """Return the shares; a response without a final answer gets 0."""
        return [score for group in by_prompt(candidates) for score in self._shares(group)]

    def _shares(self, group: Sequence[Candidate]) -> Iterator[Score]:
        answers = [final_answer(item.text, self.answer, item.prompt) for item in group]
        counts = Counter(answers)
        for answer in answers:
            share = 0.0 if answer is None else counts[answer] / len(group)
            yield Score(share, {"answer": answer})


SCORER = Agreement
