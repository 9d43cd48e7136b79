"""How much the images of a prompt raise the log-prob of a response, per token."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar

from unidpo_mm.errors import DataError
from unidpo_mm.inference.checkpoint import find_checkpoint
from unidpo_mm.pipelines.scorer import Candidate, Fault, Score, Scored, Scorer, ScoringContext
from unidpo_mm.records import PreferenceRow

from ..prefs.logps import PairModel
from ._logps import Dtype, RowLogps, load_logp_model, logps_of, mean_logp, response_row


@dataclass(frozen=True)
class ImageGain(Scorer):
    """The mean log-prob of a response with the images and videos of its prompt, minus without.

    A response that the model would also write without the images gains little. The unit is nats
    per token.

    Attributes:
        model: Directory of a vision-language model or a LoRA adapter, or its name on the hub.
        dtype: Number format of the weights; ``auto`` keeps the saved one.
        chat_template_kwargs: Variables of the chat template.
    """

    model: str
    dtype: Dtype = "auto"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    paths: ClassVar[frozenset[str]] = frozenset({"model"})
    sees_images: ClassVar[bool] = True

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of forward passes."""
        return {"forward passes": 2 * candidates}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores: the weights instead of their place."""
        settings = {"version": self.version, **asdict(self)}
        return settings | {"model": find_checkpoint(self.model).weights}

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load the model and return the function that scores."""
        model = load_logp_model(self.model, dtype=self.dtype, variables=self.chat_template_kwargs)
        return partial(_gains, model, context.batch_size)


SCORER = ImageGain


def _gains(model: PairModel, batch_size: int, candidates: Sequence[Candidate]) -> list[Scored]:
    blind = [_blind_row(candidate) for candidate in candidates]
    pairs = [
        (response_row(candidate), row)
        for candidate, row in zip(candidates, blind, strict=True)
        if not isinstance(row, Fault)
    ]
    rows = [row for pair in pairs for row in pair]
    results = iter(logps_of(model, rows, batch_size=batch_size))
    return [row if isinstance(row, Fault) else _gain(next(results), next(results)) for row in blind]


def _gain(sighted: RowLogps | Fault, blind: RowLogps | Fault) -> Scored:
    if isinstance(sighted, Fault):
        return sighted
    if isinstance(blind, Fault):
        return blind
    logps = mean_logp(sighted), mean_logp(blind)
    return Score(logps[0] - logps[1], {"with images": logps[0], "without images": logps[1]})


def _blind_row(candidate: Candidate) -> PreferenceRow | Fault:
    """Return the row without its media, or why there is none."""
    row = response_row(candidate)
    if not row.media:
        return Fault("no image", "the prompt has neither an image nor a video")
    messages = tuple(
        dataclasses.replace(message, parts=(message.text,)) for message in row.messages
    )
    try:
        return dataclasses.replace(row, messages=messages, images=(), videos=(), domain="text")
    except DataError:
        return Fault("no text", "the prompt has no text besides its images")
