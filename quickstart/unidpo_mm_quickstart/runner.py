"""The quick-start as a runner of sweeps: every arm starts from the same warmed-up model of a seed.

`configs/quickstart/comparison.yaml` and `ablations.yaml` are sweeps of it. An override may write
`$DATA` for the folder of the seed's data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unidpo_mm.errors import Problem
from unidpo_mm.recipe import Recipe
from unidpo_mm.sweep.runner import Metric

from .captions import Figures
from .held_out_pairs import DOMAINS, PairResult
from .number_format import compute_dtype
from .pipeline import Start, pairs_at_start, prepare, tune

__all__ = ["DemoRunner", "DemoStart", "values_of"]


@dataclass(frozen=True, kw_only=True)
class DemoStart:
    """The warmed-up model of a seed, and the held-out pairs under it."""

    start: Start
    pairs: Mapping[str, PairResult]


class DemoRunner:
    """Runs the quick-start's preference stage and measures it on unseen concepts.

    Args:
        split: Unseen concepts to measure on, ``heldout`` or ``validation``.
    """

    metrics: Mapping[str, Metric] = {
        "accuracy": Metric(title="right kind first %", percent=True),
        "hallucination_rate": Metric(title="second kind on one object %", percent=True),
        "object_recall": Metric(title="object recall %", percent=True),
        "exact": Metric(title="caption exactly right %", percent=True),
        "caption_words": Metric(title="words a caption"),
        "pairs_all": Metric(title="pairs, all %", percent=True),
        "pairs_multimodal": Metric(title="pairs, images %", percent=True),
        "pairs_math": Metric(title="pairs, math %", percent=True),
        "pairs_text": Metric(title="pairs, text %", percent=True),
        "chosen_logp": Metric(title="better answer's log-prob a token"),
    }

    start_title = "warm-up"

    def __init__(self, *, split: str = "heldout") -> None:
        self.split = split

    @property
    def settings(self) -> Mapping[str, Any]:
        """The concepts measured on; threads and number format, which move single runs."""
        dtype = str(compute_dtype()).removeprefix("torch.")
        return {"split": self.split, "threads": torch.get_num_threads(), "dtype": dtype}

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return nothing: the files are made for each seed."""
        return []

    def prepare(self, folder: Path, seed: int) -> DemoStart:
        """Assemble, aligns and warms up the model of one seed, and measures it."""
        start = prepare(folder, seed, split=self.split)
        return DemoStart(start=start, pairs=pairs_at_start(start))

    def start_values(self, start: DemoStart) -> Mapping[str, float]:
        """Return the figures of the warmed-up model."""
        return values_of(start.start.warmup, start.pairs)

    def run(
        self, start: DemoStart, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train one arm and returns its figures."""
        outcome = tune(start.start, folder, recipe=recipe, overrides=overrides, before=start.pairs)
        return values_of(outcome.figures, outcome.after)


def values_of(figures: Figures, pairs: Mapping[str, PairResult]) -> dict[str, float]:
    """Return the figures of one model by the names of `DemoRunner.metrics`."""
    generated = ("accuracy", "hallucination_rate", "object_recall", "exact", "caption_words")
    values = {name: getattr(figures, name).value for name in generated}
    for domain in ("all", *DOMAINS):
        found = [pair for pair in pairs.values() if domain in (pair.domain, "all")]
        values[f"pairs_{domain}"] = sum(pair.correct for pair in found) / len(found)
    values["chosen_logp"] = sum(pair.chosen_logp for pair in pairs.values()) / len(pairs)
    return values
