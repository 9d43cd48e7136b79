"""Similarity of the sentences of a response to the images, by a model such as CLIP or SigLIP."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch

from unidpo_mm.distributed.processes import processes
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.inference.checkpoint import find_checkpoint
from unidpo_mm.modeling.load import ModelSource, load_config, load_processor, load_weights
from unidpo_mm.pipelines.scorer import (
    Candidate,
    Fault,
    Score,
    Scored,
    Scorer,
    ScoringContext,
    by_prompt,
)
from unidpo_mm.plugins import load_family

from ._logps import Dtype
from ._sentences import statements

TEXTS_PER_IMAGE = 8
"""Number of sentences in a batch for each response that may be in one."""


@dataclass(frozen=True)
class Similarity(Scorer):
    """The cosine similarity of a response to the images of its prompt, sentence by sentence.

    The text encoders of CLIP and SigLIP take 64 to 77 tokens, so a sentence is compared at a time;
    a longer one is a fault. With several images, the most similar one counts.

    Attributes:
        model: Directory of the model, or its name on the hub.
        aggregate: Whether the mean or the lowest similarity of the sentences is the score.
        dtype: Number format of the weights; ``auto`` keeps the saved one.
    """

    model: str
    aggregate: Literal["mean", "min"] = "mean"
    dtype: Dtype = "auto"

    paths: ClassVar[frozenset[str]] = frozenset({"model"})
    sees_images: ClassVar[bool] = True
    scale: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of forward passes."""
        return {"forward passes": candidates}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores: the weights instead of their place."""
        settings = {"version": self.version, **asdict(self)}
        return settings | {"model": find_checkpoint(self.model).weights}

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Load the model and return the function that scores."""
        embedder = load_embedder(self.model, self.dtype)
        return partial(self._similarities, embedder, context.batch_size * TEXTS_PER_IMAGE)

    def _similarities(
        self, embedder: "Embedder", batch_size: int, candidates: Sequence[Candidate]
    ) -> list[Scored]:
        return [
            result
            for group in by_prompt(candidates)
            for result in self._of_prompt(embedder, batch_size, group)
        ]

    def _of_prompt(
        self, embedder: "Embedder", batch_size: int, group: Sequence[Candidate]
    ) -> list[Scored]:
        images = group[0].prompt.images
        if not images:
            return [Fault("no image", "the prompt has no image")] * len(group)
        claims = [statements(candidate.text_without_reasoning) for candidate in group]
        texts = list(dict.fromkeys(text for part in claims for text in part))
        fitting = [text for text in texts if embedder.fits(text)]
        try:
            opened = [image.open() for image in images]
        except DataError as error:
            return [Fault("prompt", str(error))] * len(group)
        values: dict[str, float] = {}
        for start in range(0, len(fitting), batch_size):
            part = fitting[start : start + batch_size]
            values |= zip(part, embedder.similarities(part, opened), strict=True)
        return [self._score(part, values) for part in claims]

    def _score(self, texts: Sequence[str], values: Mapping[str, float]) -> Scored:
        if not texts:
            return Fault("no statement", "the response states nothing that can be compared")
        if long := next((text for text in texts if text not in values), None):
            return Fault("too long", f"a sentence is longer than the model takes: '{long[:80]}'")
        each = [values[text] for text in texts]
        value = fmean(each) if self.aggregate == "mean" else min(each)
        listed = [[text, round(item, 6)] for text, item in zip(texts, each, strict=True)]
        return Score(value, {"sentences": listed})


SCORER = Similarity


@dataclass(frozen=True)
class Embedder:
    """A model that embeds images and texts in the same space.

    Attributes:
        model: The model, in evaluation mode.
        processor: Its processor.
        max_length: Maximum number of tokens of a text.
        device: The device of the model.
    """

    model: Any
    processor: Any
    max_length: int
    device: Any

    def fits(self, text: str) -> bool:
        """Return whether the model takes a text."""
        ids = self.processor.tokenizer(text)["input_ids"]
        return len(ids) <= self.max_length

    @torch.inference_mode()
    def similarities(self, texts: Sequence[str], images: Sequence[Any]) -> list[float]:
        """Return the cosine similarity of each text to the most similar image."""
        inputs = self.processor(
            text=list(texts),
            images=list(images),
            padding="max_length",  # SigLIP was trained with it
            max_length=self.max_length,
            return_tensors="pt",
        ).to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        output = self.model(**inputs)
        text, image = (
            torch.nn.functional.normalize(part.float(), dim=-1)
            for part in (output.text_embeds, output.image_embeds)
        )
        best = (text @ image.T).max(1).values
        return [*best.clamp(-1.0, 1.0).tolist()]


def load_embedder(name: str, dtype: Dtype) -> Embedder:
    """Load a model that embeds images and texts.

    Raises:
        ModelError: If it cannot be loaded, or is not such a model.
    """
    source = ModelSource(name_or_path=name, dtype=dtype, base_key=None)
    config = load_config(source)
    parts = getattr(config, "text_config", None), getattr(config, "vision_config", None)
    length = getattr(parts[0], "max_position_embeddings", None)
    family = dataclasses.replace(load_family("text"), auto_class="AutoModel", needs_processor=True)
    if None in parts or length is None:
        text = "the model does not embed images and texts"
        raise ModelError(Problem(name, text, "Use a model such as CLIP or SigLIP"))
    model: Any = load_weights(source, family, is_trainable=False)
    if not hasattr(model, "get_text_features"):
        text = f"a model of the type '{config.model_type}' does not embed texts"
        raise ModelError(Problem(name, text, "Use a model such as CLIP or SigLIP"))
    device = processes().device
    return Embedder(model.to(device).eval(), load_processor(source, family), length, device)
