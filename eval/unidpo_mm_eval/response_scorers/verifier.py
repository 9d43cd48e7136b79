"""Compare the final answer with the right one: 1 if it is right, 0 if it is wrong or missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from unidpo_mm.pipelines.scorer import Candidate, Fault, Need, Score, Scored, Scorer

from ..data.samples import Grade
from ..scorers.math.pool import DIED, TIMEOUT, grade_all
from ._answers import AnswerKind, final_answer, formula_of, right_answer

PROFILE = "math-verify-clean"
WITHOUT_GRADE = {
    TIMEOUT: Fault("timeout", "the answer took too long to compare"),
    DIED: Fault("timeout", "the process that compares answers ended", temporary=True),
}
"""Note of a grade that is none -> the fault."""


@dataclass(frozen=True)
class Verifier(Scorer):
    """Compares the final answer of a response with the right answer.

    A response without a final answer gets 0, and its evidence has the answer `None`. A right answer
    that is not of the stated kind is a fault, because it would make every response wrong.

    Attributes:
        answer: Kind of the answer. ``math`` uses the library math-verify.
        tolerance: Relative difference that two numbers may have.
        graded: Whether a wrong number gets a score below 0.5 that falls with its distance, instead
            of 0, so that pairs of wrong and right numbers have different margins.
        contains: Whether it suffices that a text contains the right answer.
    """

    answer: AnswerKind = "math"
    tolerance: float = 0.0
    graded: bool = False
    contains: bool = False

    needs: ClassVar[frozenset[Need]] = frozenset({"gold"})
    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError("tolerance must not be below 0")
        if self.tolerance and self.answer != "number":
            raise ValueError("tolerance is for numbers: set answer to number")
        if self.graded and self.answer != "number":
            raise ValueError("graded is for numbers: set answer to number")
        if self.contains and self.answer != "text":
            raise ValueError("contains is for texts: set answer to text")

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of comparisons, which run on the CPU."""
        return {"comparisons": candidates}

    def score(self, candidates: Sequence[Candidate]) -> Sequence[Scored]:
        """Return 1 for right answers and less for others; the evidence has the answer."""
        if self.answer == "math":
            return _verified(candidates)
        return [self._compared(candidate) for candidate in candidates]

    def _compared(self, candidate: Candidate) -> Scored:
        prompt = candidate.prompt
        gold = right_answer(str(candidate.gold), self.answer, prompt)
        if gold is None:
            return unusable(candidate, self.answer)
        answer = final_answer(candidate.text, self.answer, prompt)
        if answer is None:
            return Score(0.0, {"answer": None})
        if self.answer == "number":
            value = self._closeness(float(answer), float(gold))
        elif self.answer == "text":
            value = float(self._same_text(answer, gold))
        else:
            value = float(answer.casefold() == gold.casefold())
        return Score(value, {"answer": answer})

    def _same_text(self, answer: str, gold: str) -> bool:
        if self.contains:
            return gold in answer
        try:
            number, target = (float(text.replace(",", "")) for text in (answer, gold))
        except ValueError:
            return answer.rstrip(".") == gold.rstrip(".")
        return number == target

    def _closeness(self, number: float, target: float) -> float:
        distance = abs(number - target)
        if distance <= self.tolerance * abs(target):
            return 1.0
        return 0.5 / (1 + distance) if self.graded else 0.0


SCORER = Verifier


def _verified(candidates: Sequence[Candidate]) -> list[Scored]:
    """Return the verdicts of math-verify; each right answer is also compared with itself."""
    formulas = [formula_of(str(candidate.gold)) for candidate in candidates]
    golds = list(dict.fromkeys(formulas))
    pairs = [(gold, rf"\boxed{{{gold}}}") for gold in golds]
    responses = [candidate.text_without_reasoning for candidate in candidates]
    pairs += zip(formulas, responses, strict=True)
    grades = grade_all(PROFILE, pairs)
    readable = {gold for gold, grade in zip(golds, grades, strict=False) if grade.score == 1}
    return [
        _scored(candidate, grade, readable=formula in readable)
        for candidate, formula, grade in zip(
            candidates, formulas, grades[len(golds) :], strict=True
        )
    ]


def _scored(candidate: Candidate, grade: Grade, *, readable: bool) -> Scored:
    if fault := WITHOUT_GRADE.get(grade.note):
        return fault
    if grade.score < 1 and not readable:
        return unusable(candidate, "math")
    return Score(float(grade.score), {"answer": grade.answer})


def unusable(candidate: Candidate, kind: AnswerKind) -> Fault:
    """Return the fault of a response whose right answer is not of the stated kind."""
    return Fault("right answer", f"the right answer '{candidate.gold}' is not of the kind '{kind}'")
