r"""Process reward models: the backbone of a language model with a head of two layers.

A mark follows every step of a solution, the last one included, and the reward of the step is the
probability of the second of two labels at its mark (Zhang et al., 2025, arXiv 2501.07301).

The head is read from the files of the checkpoint, so that none of its code has to run.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from ..scorer import Candidate, Fault, Score, Scored, ScoringContext
from ._local_model import LocalModelScorer

if TYPE_CHECKING:
    from ._step_model import StepModel

__all__ = ["SCORER", "ProcessReward", "steps_of"]

SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "mean": lambda steps: math.fsum(steps) / len(steps),
    "product": math.prod,
    "last": lambda steps: steps[-1],
}


@dataclass(frozen=True)
class ProcessReward(LocalModelScorer):
    """The rewards of the steps of a solution, which blank lines separate, as one number.

    Images are not seen, and reasoning in tags is removed. All rewards and the index of the lowest
    one are part of the evidence. A solution that is too long is a fault, not cut.

    Attributes:
        aggregate: How the rewards of the steps become one number.
        system: System message, which replaces that of the prompt.
        mark: The token after each step.
    """

    aggregate: Literal["min", "mean", "product", "last"] = "min"
    system: str = SYSTEM
    mark: str = "<extra_0>"

    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.mark.strip():
            raise ValueError("mark is empty")
        super().__post_init__()

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load the model and return the function that scores."""
        from ._step_model import load_step_model

        model = load_step_model(
            self.model, mark=self.mark, dtype=self.dtype, max_length=self.max_length
        )
        return partial(self._rewards, model, context.batch_size)

    def _rewards(
        self, model: "StepModel", batch_size: int, candidates: Sequence[Candidate]
    ) -> list[Scored]:
        from ._models import rendered, scored_by_length, turns_of

        def encode(candidate: Candidate) -> list[int] | Fault:
            steps = steps_of(candidate.text_without_reasoning)
            turns = [turn for turn in turns_of(candidate.prompt) if turn["role"] != "system"]
            if self.system:
                turns = [{"role": "system", "content": self.system}, *turns]
            content = "".join(step + self.mark for step in steps)
            ids = rendered(model.text, [*turns, {"role": "assistant", "content": content}])
            marks = ids.count(model.mark_id)
            if marks != len(steps):
                text = f"{marks} marks '{self.mark}' for {len(steps)} steps: the text contains it"
                return Fault("step mark", text)
            return ids

        def run(rows: Sequence[Sequence[int]]) -> list[Scored]:
            return [self._score(steps) for steps in model.step_rewards(rows)]

        return scored_by_length(
            model.text, candidates, encode, lambda ids: ids, run, batch_size=batch_size
        )

    def _score(self, steps: Sequence[float]) -> Score:
        lowest = min(range(len(steps)), key=steps.__getitem__)
        value = AGGREGATES[self.aggregate](steps)
        return Score(value, {"steps": list(steps), "lowest": lowest})


SCORER = ProcessReward


def steps_of(solution: str) -> list[str]:
    """Return the steps of a solution, which blank lines separate; empty ones are no steps."""
    return [step.strip() for step in re.split(r"\n\s*\n", solution) if step.strip()]
