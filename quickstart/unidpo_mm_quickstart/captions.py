"""Greedy captions of images, and their metrics."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from unidpo_mm_eval.benchmarks.quickstart import named_kinds

from unidpo_mm.number_format import fastest_dtype

from .images import Canvas
from .training_rows import QUESTION, prompt

__all__ = [
    "CaptionMetrics",
    "Rate",
    "caption_metrics",
    "greedy_captions",
    "majority_rate",
    "shuffle",
]

BATCH = 50
MAX_NEW_TOKENS = 8
"""The longest correct caption has five tokens; longer responses are truncated."""


@dataclass(frozen=True)
class Rate:
    """A mean of n values with its standard error."""

    value: float
    error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class CaptionMetrics:
    """The metrics of captions.

    Attributes:
        accuracy: Fraction of captions whose first kind is in the image.
        hallucination_rate: Fraction of the images with one object whose caption names a second
            kind, so that at least one of the two is absent.
        object_recall: Fraction of the objects that are named.
        caption_words: Words per caption.
        exact: Fraction of captions that equal the correct one.
    """

    accuracy: Rate
    hallucination_rate: Rate
    object_recall: Rate
    caption_words: Rate
    exact: Rate


@torch.no_grad()
def greedy_captions(
    model: Any, processor: Any, canvases: Sequence[Canvas], *, question: str = QUESTION
) -> list[str]:
    """Return the model's greedy responses to the same question about each image.

    Args:
        model: A model with `generate`, in evaluation mode.
        processor: Its processor.
        canvases: The images.
        question: The question.
    """
    from PIL import Image

    prompt_text = processor.apply_chat_template(
        prompt(question, image=True), tokenize=False, add_generation_prompt=True
    )
    dtype = fastest_dtype()
    captions: list[str] = []
    for start in range(0, len(canvases), BATCH):
        images = [Image.open(c.file).convert("RGB") for c in canvases[start : start + BATCH]]
        inputs = processor(
            text=[prompt_text] * len(images), images=images, return_tensors="pt", padding=True
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            generated = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        responses = generated[:, inputs["input_ids"].shape[1] :]
        texts = processor.batch_decode(responses, skip_special_tokens=True)
        captions += [text.strip() for text in texts]
    return captions


def caption_metrics(captions: Sequence[str], canvases: Sequence[Canvas]) -> CaptionMetrics:
    """Compare captions with the content of their images."""
    pairs = [(named_kinds(text), canvas) for text, canvas in zip(captions, canvases, strict=True)]
    words = [float(len(caption.split())) for caption in captions]
    return CaptionMetrics(
        accuracy=rate([bool(kinds) and kinds[0] in canvas.kinds for kinds, canvas in pairs]),
        hallucination_rate=rate(
            [len(kinds) > 1 for kinds, canvas in pairs if len(canvas.kinds) == 1]
        ),
        object_recall=rate([kind in kinds for kinds, canvas in pairs for kind in canvas.kinds]),
        caption_words=rate(words),
        exact=rate([caption == c.caption for caption, c in zip(captions, canvases, strict=True)]),
    )


def rate(values: Sequence[float]) -> Rate:
    """Return the mean of values with its standard error; true counts as 1."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / max(n - 1, 1)
    return Rate(mean, math.sqrt(variance / n), n)


def majority_rate(canvases: Sequence[Canvas]) -> float:
    """Return the accuracy of a model that always names the most frequent kind."""
    counts = Counter(kind for canvas in canvases for kind in canvas.kinds)
    return counts.most_common(1)[0][1] / len(canvases)


def shuffle(captions: Sequence[str], *, seed: int) -> list[str]:
    """Return the captions in an order in which every image has the caption of another one.

    A greedy response depends on image and question only. So generating with permuted images would
    return the same captions, permuted, and no second pass is necessary.
    """
    order = list(range(len(captions)))
    random.Random(f"shuffle-{seed}").shuffle(order)
    source = dict(zip(order, order[1:] + order[:1], strict=True))
    return [captions[source[number]] for number in range(len(captions))]
