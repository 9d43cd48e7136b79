"""What a model says of images, and the figures made of it."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from unidpo_mm_eval.benchmarks.quickstart import named_kinds

from .images import Canvas
from .number_format import compute_dtype
from .training_rows import QUESTION, prompt

__all__ = [
    "Figures",
    "Rate",
    "figures",
    "greedy_captions",
    "majority_rate",
    "shuffle",
]

BATCH = 50
MAX_NEW_TOKENS = 8
"""The longest true caption has five tokens; a rambling answer is cut, not waited for."""


@dataclass(frozen=True)
class Rate:
    """A mean over n cases with its standard error."""

    value: float
    error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What greedy captions show.

    Attributes:
        accuracy: The first kind named is in the image.
        hallucination_rate: The caption of a one-object image names a second kind, so that at
            least one of them is not there.
        object_recall: Share of the objects present that are named.
        caption_words: Words in a caption.
        exact: The caption is the true one.
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
    """Return the model's greedy answers to one question about each image.

    Args:
        model: A model with `generate`, in evaluation mode.
        processor: Its processor.
        canvases: The images.
        question: What to ask.
    """
    from PIL import Image

    text = processor.apply_chat_template(
        prompt(question, image=True), tokenize=False, add_generation_prompt=True
    )
    dtype = compute_dtype()
    captions: list[str] = []
    for start in range(0, len(canvases), BATCH):
        images = [Image.open(c.file).convert("RGB") for c in canvases[start : start + BATCH]]
        inputs = processor(
            text=[text] * len(images), images=images, return_tensors="pt", padding=True
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            generated = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = generated[:, inputs["input_ids"].shape[1] :]
        captions += [
            answer.strip() for answer in processor.batch_decode(new, skip_special_tokens=True)
        ]
    return captions


def figures(captions: Sequence[str], canvases: Sequence[Canvas]) -> Figures:
    """Return the figures of captions; `canvases` say what the truth is."""
    named = [named_kinds(caption) for caption in captions]
    pairs = list(zip(named, canvases, strict=True))
    words = [float(len(caption.split())) for caption in captions]
    return Figures(
        accuracy=rate([bool(found) and found[0] in canvas.kinds for found, canvas in pairs]),
        hallucination_rate=rate(
            [len(found) > 1 for found, canvas in pairs if len(canvas.kinds) == 1]
        ),
        object_recall=rate([kind in found for found, canvas in pairs for kind in canvas.kinds]),
        caption_words=rate(words),
        exact=rate([caption == c.caption for caption, c in zip(captions, canvases, strict=True)]),
    )


def rate(values: Sequence[float]) -> Rate:
    """Return the mean of values, true counting 1, with its standard error."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / max(n - 1, 1)
    return Rate(mean, math.sqrt(variance / n), n)


def majority_rate(canvases: Sequence[Canvas]) -> float:
    """Return the accuracy of always naming the most frequent kind."""
    counts = Counter(kind for canvas in canvases for kind in canvas.kinds)
    return counts.most_common(1)[0][1] / len(canvases)


def shuffle(captions: Sequence[str], *, seed: int) -> list[str]:
    """Return each caption at the place of another image's.

    A model's greedy answer depends on image and question alone, so asking about permuted
    images gives permuted answers: no second pass is needed.
    """
    order = list(range(len(captions)))
    random.Random(f"shuffle-{seed}").shuffle(order)
    source = dict(zip(order, order[1:] + order[:1], strict=True))
    return [captions[source[number]] for number in range(len(captions))]
