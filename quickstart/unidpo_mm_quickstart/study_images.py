"""The study's image part: the quick-start's model on pairs of captions, some with wrong labels.

`configs/studies/images.yaml` is its sweep. The conditions are three of the text part:
``clean``, ``flip40_informed`` and ``flip40_blind``, see `study_rows`.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from unidpo_mm.sweep.runner import Metric

from .runner import DemoRunner
from .stages import Start
from .study_rows import flip
from .training_rows import DemoData, write_jsonl
from .wrong_labels import METRICS, figures_of, wrong_rows

__all__ = ["StudyImagesRunner", "write_conditions"]

FLIPPED = 0.4
"""Fraction of the pairs whose labels are wrong."""

FILES = {"flip40_informed": True, "flip40_blind": False}
"""Files of pairs with wrong labels, and whether the scores of wrong labels hardly differ."""


class StudyImagesRunner(DemoRunner):
    """The runner of the study's image part, evaluated on unseen concepts and right labels."""

    metrics: Mapping[str, Metric] = {
        **{
            name: metric
            for name, metric in DemoRunner.metrics.items()
            if name not in ("caption_words", "pairs_all", "pairs_math", "pairs_text")
        },
        **METRICS,
    }

    def prepare(self, folder: Path, seed: int) -> Start:
        """Assemble and warm up the model of a seed, and write its pairs."""
        start = super().prepare(folder, seed)
        write_conditions(start.data, seed=seed)
        return start

    def run(
        self, start: Start, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train an arm and return its metrics."""
        values = super().run(start, recipe, overrides, folder)
        for name in FILES:
            if any(f"$DATA/{name}.jsonl" in override for override in overrides):
                wrong = wrong_rows(start.data.file(name), start.data.file("multimodal"))
                return {**values, **figures_of(folder, wrong)}
        return values


def write_conditions(data: DemoData, *, seed: int) -> None:
    """Write the pairs of captions with wrong labels next to those with right ones.

    Args:
        data: The data of the quick-start.
        seed: Seed of the wrong labels.
    """
    lines = data.file("multimodal").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    count = round(FLIPPED * len(rows))
    flipped = set(random.Random(f"study-images-{seed}").sample(range(len(rows)), count))
    for name, informed in FILES.items():
        changed = (
            flip(row, informed=informed) if number in flipped else row
            for number, row in enumerate(rows)
        )
        write_jsonl(data.file(name), changed)
