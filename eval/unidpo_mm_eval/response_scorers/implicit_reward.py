"""The implicit reward of a model that was trained with DPO."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from unidpo_mm.distributed.processes import processes
from unidpo_mm.errors import ModelError, Problem
from unidpo_mm.inference.checkpoint import LoadedCheckpoint, find_checkpoint, load_checkpoint
from unidpo_mm.pipelines.scorer import Candidate, Fault, Score, Scored, Scorer, ScoringContext

from ..prefs.evaluation import LORA_OFF
from ..prefs.logps import PairModel
from ._logps import Dtype, RowLogps, load_logp_model, logps_of, response_row


@dataclass(frozen=True)
class ImplicitReward(Scorer):
    """beta (log pi - log pi_ref) of a response, in nats (Rafailov et al., 2023, arXiv 2305.18290).

    Attributes:
        model: Directory of the trained model or its LoRA adapter, or its name on the hub.
        reference: The model from which it was trained; ``lora_off`` is the model without its LoRA
            adapter.
        beta: Factor of the reward.
        average: Whether the log-probs of the tokens are summed, as in DPO, or averaged.
        dtype: Number format of the weights; ``auto`` keeps the saved one.
        chat_template_kwargs: Variables of the chat template.
    """

    model: str
    reference: str = LORA_OFF
    beta: float = 0.1
    average: Literal["sum", "mean"] = "sum"
    dtype: Dtype = "auto"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    paths: ClassVar[frozenset[str]] = frozenset({"model", "reference"})
    sees_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError("beta must be a number above 0")

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of forward passes."""
        return {"forward passes": 2 * candidates}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores: the weights instead of their place."""
        settings = {"version": self.version, **asdict(self)}
        names = ["model"] if self.reference == LORA_OFF else ["model", "reference"]
        weights = {name: find_checkpoint(getattr(self, name)).weights for name in names}
        return settings | weights

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load both models and return the function that scores.

        Raises:
            ModelError: If the model has no LoRA adapter to disable, or the models do not match.
        """
        reference: LoadedCheckpoint | str = LORA_OFF
        if self.reference != LORA_OFF:
            other = find_checkpoint(self.reference, with_hash=False)
            reference = load_checkpoint(other, dtype=self.dtype, device=processes().device)
        elif find_checkpoint(self.model, with_hash=False).lora is None:
            text = f"'{self.model}' has no LoRA adapter to disable"
            remedy = "Set reference to the model from which it was trained"
            raise ModelError(Problem("reference", text, remedy))
        model = load_logp_model(
            self.model,
            dtype=self.dtype,
            variables=self.chat_template_kwargs,
            reference=reference,
        )
        return partial(self._rewards, model, context.batch_size)

    def _rewards(
        self, model: PairModel, batch_size: int, candidates: Sequence[Candidate]
    ) -> list[Scored]:
        rows = [response_row(candidate) for candidate in candidates]
        return [self._reward(result) for result in logps_of(model, rows, batch_size=batch_size)]

    def _reward(self, result: RowLogps | Fault) -> Scored:
        if isinstance(result, Fault):
            return result
        assert result.reference is not None
        (tokens,), (reference,) = result.tokens, result.reference
        count = 1 if self.average == "sum" else len(tokens)
        policy = math.fsum(tokens)
        evidence = {"log-prob": policy, "reference": reference, "tokens": len(tokens)}
        return Score(self.beta * (policy - reference) / count, evidence)


SCORER = ImplicitReward
