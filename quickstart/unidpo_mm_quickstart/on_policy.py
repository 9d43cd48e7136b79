"""Tune on responses of the model itself: the arms of `unidpo-mm demo --on-policy`.

The warmed-up model writes eight captions of every training image and eight responses to every sum,
which get scores and become pairs by `unidpo-mm data make`. The controls have the same responses
with the scores of each prompt in random order, or with the scores for another image.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unidpo_mm.config.shipped import shipped_recipe
from unidpo_mm.pipelines.load import Making, load_make_recipe
from unidpo_mm.pipelines.run import make

from .runner import DemoRunner
from .stages import Start
from .training_rows import QUESTION, prompt

__all__ = ["CONTROLS", "OnPolicyRunner", "make_on_policy"]

CONTROLS = ("permuted", "other_image")
"""Settings of the scorer of captions that are controls."""


class OnPolicyRunner(DemoRunner):
    """The runner of the arms, whose common start includes the on-policy data.

    Args:
        split: Unseen concepts to evaluate on, ``heldout`` or ``validation``.
        images: Number of images to write captions of; `None` for all training images.
    """

    def __init__(self, *, split: str = "heldout", images: int | None = None) -> None:
        super().__init__(split=split)
        self.images = images

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the quick-start, and the number of images."""
        return {**super().settings, "images": self.images}

    def prepare(self, folder: Path, seed: int) -> Start:
        """Assemble and warm up the model of a seed, and make the on-policy data."""
        start = super().prepare(folder, seed)
        make_on_policy(start, images=self.images)
        return start


def make_on_policy(start: Start, *, images: int | None = None) -> None:
    """Write `captions`, its controls and `sums` to the directory of the data.

    Args:
        start: The warmed-up model and its data.
        images: Number of images to write captions of; `None` for all.
    """
    data = start.data.folder
    _write(data / "prompts.jsonl", _caption_prompts(start, images))
    _write(data / "sum_prompts.jsonl", _sum_prompts(start))
    captions = _making("make_captions", start, data / "prompts.jsonl", "captions")
    made = make(captions)
    for control in CONTROLS:  # the same responses with other scores
        folder = data / f"captions_{control}"
        folder.mkdir(exist_ok=True)
        shutil.copy(made.files.responses, folder)
        make(_making("make_captions", start, data / "prompts.jsonl", folder.name, control))
    make(_making("make_sums", start, data / "sum_prompts.jsonl", "sums"))


def _making(
    name: str, start: Start, prompts: Path, output: str, control: str | None = None
) -> Making:
    folder = start.data.folder
    overrides = [
        f"output={folder / output}",
        f"model.name_or_path={start.model}",
        f"prompts.sources.0.path={prompts}",
        f"sample.seed={start.seed}",
    ]
    if control is not None:
        overrides.append(f"score.kinds.control={control}")
    return load_make_recipe(shipped_recipe(f"quickstart/{name}.yaml"), overrides)


def _caption_prompts(start: Start, images: int | None) -> Iterator[dict[str, Any]]:
    for canvas in start.data.train[:images]:
        yield {
            "id": canvas.id,
            "prompt": prompt(QUESTION, image=True),
            "images": [f"images/{canvas.file.name}"],
            "answer": canvas.caption,
        }


def _sum_prompts(start: Start) -> Iterator[dict[str, Any]]:
    """Yield the prompts of the planted pairs of sums, each once, with their right answers."""
    prompts: dict[str, dict[str, Any]] = {}
    for line in start.data.file("math").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompts.setdefault(json.dumps(row["prompt"]), row)
    for row in prompts.values():
        yield {"id": row["id"], "prompt": row["prompt"], "answer": row["chosen"]}


def _write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
