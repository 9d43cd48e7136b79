"""Write the training and held-out files: images, math and text as rows with scores.

**The planted error.** As in noisy caption data, a fixed fraction of the warm-up captions of images
with one object names a second, absent object. The preference pairs prefer the correct caption. They
are balanced: the correct caption is shorter than the rejected one (which adds an absent object, or
repeats the one that is there) as often as it is longer (the rejected one omits an object); the
other pairs have equal length (one object is wrong). So neither shorter nor longer captions are
preferred. Without the repetitions, some tuned models avoided absent objects by "face and face".
Half of the images show two objects, of which either may be replaced by an absent one; where it was
always the second, tuned models looked at that one less. Each training prompt has three pairs, a
held-out one has one.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .exercises import Task, math_tasks, text_tasks
from .images import KINDS, Canvas, caption, draw_canvases, load_emoji, split_emoji

__all__ = ["DOMAINS", "QUESTION", "DemoData", "Sizes", "caption_pair", "write_data"]

DOMAINS = ("multimodal", "math", "text")
QUESTION = "What is shown?"

PLANTED_SHARE = 0.7
"""Fraction of one-object warm-up captions that name an absent second kind, on purpose."""

TRUE_SCORE = 9.5
FAULT_SCORES = {
    "added": 4.0,
    "repeated": 4.0,
    "omitted": 4.0,
    "half wrong": 3.0,
    "wrong": 1.0,
}
"""Scores of the rejected captions on a scale of 0 to 10, by how much of them is correct."""

PAIRS = 3
"""Pairs of each training prompt; they share one pass over the prompt."""

EQUAL_LENGTH_PERIOD = 6
"""One in this many pairs has a rejected caption of the same length as the correct one."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of images and rows."""

    train_images: int = 300
    images_with_pairs: int = 140
    math_prompts: int = 30
    text_prompts: int = 30
    test_images: int = 120
    test_image_pairs: int = 60
    test_math_pairs: int = 24
    test_text_pairs: int = 24


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """The directory of the data files, and the images that they refer to."""

    folder: Path
    train: tuple[Canvas, ...]
    test: tuple[Canvas, ...]

    def file(self, name: str) -> Path:
        """Return the path of a data file such as ``warmup``, ``multimodal`` or ``math``."""
        return self.folder / f"{name}.jsonl"


def write_data(
    emoji_folder: Path, folder: Path, *, seed: int, split: str, sizes: Sizes | None = None
) -> DemoData:
    """Draw the images and write all rows of a run.

    Args:
        emoji_folder: Directory of the unpacked Twemoji files.
        folder: Directory for images and JSONL files.
        seed: Seed of images, planted errors and tasks.
        split: Unseen concepts to evaluate on, ``heldout`` or ``validation``.
        sizes: Numbers of images and rows; `None` for the defaults.
    """
    sizes = sizes or Sizes()
    parts = split_emoji(load_emoji(emoji_folder))
    images = folder / "images"
    train = draw_canvases(parts["train"], images, sizes.train_images, name="train", seed=seed)
    test = draw_canvases(parts[split], images, sizes.test_images, name=split, seed=seed)
    data = DemoData(folder=folder, train=tuple(train), test=tuple(test))
    generator = random.Random(f"rows-{seed}")
    write_jsonl(data.file("warmup"), (warmup_row(canvas, generator) for canvas in train))
    pairs = [
        pair
        for number, canvas in enumerate(train[: sizes.images_with_pairs])
        for pair in caption_pairs(canvas, number, generator)
    ]
    write_jsonl(data.file("multimodal"), pairs)
    write_jsonl(data.file("multimodal_shuffled"), shuffled(pairs, generator))
    sums = math_tasks("train", sizes.math_prompts, seed=seed, pairs=PAIRS)
    words = text_tasks("train", sizes.text_prompts, seed=seed, pairs=PAIRS)
    write_jsonl(data.file("math"), map(task_row, sums))
    write_jsonl(data.file("text"), map(task_row, words))
    write_jsonl(data.file("test_images"), map(test_row, test))
    held_out = [caption_pair(c, n, generator) for n, c in enumerate(test[: sizes.test_image_pairs])]
    held_out += map(task_row, math_tasks(split, sizes.test_math_pairs, seed=seed))
    held_out += map(task_row, text_tasks(split, sizes.test_text_pairs, seed=seed))
    write_jsonl(data.file("heldout_pairs"), held_out)
    return data


def prompt(text: str, *, image: bool) -> list[dict[str, Any]]:
    """Return a prompt as messages."""
    parts: list[dict[str, Any]] = [{"type": "image"}] if image else []
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def warmup_row(canvas: Canvas, generator: random.Random) -> dict[str, Any]:
    """Return an image with one caption, which may have the planted error."""
    named = list(canvas.kinds)
    if len(named) == 1 and generator.random() < PLANTED_SHARE:
        named.append(other_kind(named, generator))
    return {
        "id": f"warmup-{canvas.id}",
        "domain": "multimodal",
        "prompt": prompt(QUESTION, image=True),
        "images": [f"images/{canvas.file.name}"],
        "responses": [{"text": caption(named)}],
    }


def test_row(canvas: Canvas) -> dict[str, Any]:
    """Return the question about an unseen image, as the benchmark `quickstart` reads it."""
    return {
        "id": canvas.id,
        "image": f"images/{canvas.file.name}",
        "question": QUESTION,
        "kinds": list(canvas.kinds),
        "caption": canvas.caption,
    }


def caption_pair(canvas: Canvas, number: int, generator: random.Random) -> dict[str, Any]:
    """Return one preference pair of an image; `number` determines the kind of fault."""
    equal = number // 2 % EQUAL_LENGTH_PERIOD == EQUAL_LENGTH_PERIOD - 1
    other = other_kind(canvas.kinds, generator)
    if len(canvas.kinds) == 1:
        fault = "wrong" if equal else "added"
        rejected = [other] if equal else [*canvas.kinds, other]
    else:
        fault = "half wrong" if equal else "omitted"
        rejected = [canvas.kinds[0], other] if equal else [canvas.kinds[0]]
    return pair_row(canvas, rejected, fault)


def caption_pairs(canvas: Canvas, number: int, generator: random.Random) -> list[dict[str, Any]]:
    """Return three preference pairs of an image; `number` determines the kinds of faults."""
    absent = [kind for kind in KINDS if kind not in canvas.kinds]
    generator.shuffle(absent)
    first, *second = canvas.kinds
    if not second:
        faults = [
            ("added", [first, absent[0]]),
            ("wrong", absent[:1]),
            ("repeated", [first, first]),
        ]
    else:
        odd = number // 2 % 2  # halved, because images alternate between one and two objects
        half_wrong = [*second, absent[0]] if odd else [first, absent[0]]
        faults = [("omitted", [first]), ("omitted", second), ("half wrong", half_wrong)]
    return [pair_row(canvas, rejected, fault) for fault, rejected in faults]


def pair_row(canvas: Canvas, rejected: Sequence[str], fault: str) -> dict[str, Any]:
    """Return the pair of an image's correct caption and one that names other kinds."""
    return {
        "id": "-".join([canvas.id, *rejected]),
        "domain": "multimodal",
        "prompt": prompt(QUESTION, image=True),
        "images": [f"images/{canvas.file.name}"],
        "chosen": canvas.caption,
        "rejected": caption(rejected),
        "score_chosen": TRUE_SCORE,
        "score_rejected": FAULT_SCORES[fault],
    }


def task_row(task: Task) -> dict[str, Any]:
    """Return the row of a text or math task."""
    return {
        "id": task.id,
        "domain": task.id.partition("-")[0],
        "prompt": prompt(task.prompt, image=False),
        "chosen": task.chosen,
        "rejected": task.rejected,
        "score_chosen": task.score_chosen,
        "score_rejected": task.score_rejected,
    }


def shuffled(rows: Sequence[Mapping[str, Any]], generator: random.Random) -> list[dict[str, Any]]:
    """Return the rows with other images and the same text, as a control."""
    images = list(dict.fromkeys(row["images"][0] for row in rows))
    generator.shuffle(images)
    # One step along a random cycle, so no row keeps its image
    other = dict(zip(images, images[1:] + images[:1], strict=True))
    return [{**row, "images": [other[row["images"][0]]]} for row in rows]


def other_kind(kinds: Sequence[str], generator: random.Random) -> str:
    """Return a kind that is not among `kinds`."""
    return generator.choice([kind for kind in KINDS if kind not in kinds])


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
