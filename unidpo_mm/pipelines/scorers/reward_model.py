"""Reward models with a classification head, which read the conversation as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from ..scorer import Candidate, Scored, ScoringContext
from ._local_model import LocalModelScorer

if TYPE_CHECKING:
    from ._models import TextModel

__all__ = ["SCORER", "RewardModel"]


@dataclass(frozen=True)
class RewardModel(LocalModelScorer):
    """The reward of a sequence classifier of transformers with one label.

    The conversation is rendered with the chat template of the model's tokenizer. Images are not
    seen, reasoning is removed, and a conversation that is too long is a fault.

    Attributes:
        read: Output of the model that is the score: ``logits``, or ``score`` for models with code
            of their own, such as ArmoRM.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        scale: Lowest and highest possible score; `None` for scores without limits, such as logits.
    """

    read: Literal["logits", "score"] = "logits"
    trust_remote_code: bool = False
    scale: tuple[float, float] | None = field(default=None, kw_only=True)  # type: ignore[misc] # a parameter

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError("scale: the first number must be below the second")
        super().__post_init__()

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load the model and return the function that scores."""
        from ._models import load_text_model

        model = load_text_model(
            self.model,
            "AutoModelForSequenceClassification",
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            max_length=self.max_length,
        )
        self._check_labels(model)
        return partial(self._rewards, model, context.batch_size)

    def _check_labels(self, model: "TextModel") -> None:
        from ...errors import ModelError, Problem

        labels = model.model.config.num_labels
        if self.read == "logits" and labels != 1:
            text = f"the model has {labels} labels, and a reward model has one"
            remedy = "Use a reward model, or set read to score if its output has a score"
            raise ModelError(Problem(self.model, text, remedy))

    def _rewards(
        self, model: "TextModel", batch_size: int, candidates: Sequence[Candidate]
    ) -> list[Scored]:
        from ._models import rendered, scored_by_length, turns_of

        def encode(candidate: Candidate) -> list[int]:
            answer = {"role": "assistant", "content": candidate.text_without_reasoning}
            return rendered(model, [*turns_of(candidate.prompt), answer])

        run = partial(self._run, model)
        return scored_by_length(
            model, candidates, encode, lambda ids: ids, run, batch_size=batch_size
        )

    def _run(self, model: "TextModel", rows: Sequence[Sequence[int]]) -> list[Scored]:
        from ...errors import ModelError, Problem

        output = model.model(**model.padded(rows))
        values = getattr(output, self.read, None)
        if values is None or values.numel() != len(rows):
            shape = "missing" if values is None else f"of the shape {list(values.shape)}"
            text = f"its output '{self.read}' is {shape} for {len(rows)} conversations"
            remedy = "Set read to the output with one number per conversation: logits or score"
            raise ModelError(Problem(self.model, text, remedy))
        return [*values.float().flatten().tolist()]


SCORER = RewardModel
