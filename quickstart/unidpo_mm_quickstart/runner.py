"""Run the quick-start in sweeps: the arms of a seed start from the same warmed-up model.

`configs/quickstart/comparison.yaml` and `ablations.yaml` are such sweeps. In their overrides,
`$DATA` is replaced by the data directory of the seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unidpo_mm.config import Recipe
from unidpo_mm.errors import Problem
from unidpo_mm.number_format import fastest_dtype
from unidpo_mm.sweep.runner import Metric

from .captions import CaptionMetrics
from .held_out_pairs import DOMAINS, PairResult
from .pipeline import Start, pairs_at_start, prepare, tune

__all__ = ["DemoRunner", "DemoStart", "values_of"]


@dataclass(frozen=True, kw_only=True)
class DemoStart:
    """The warmed-up model of a seed, with its results on held-out pairs."""

    start: Start
    pairs: Mapping[str, PairResult]


class DemoRunner:
    """The runner of the quick-start's preference stage, evaluated on unseen concepts.

    Args:
        split: Unseen concepts to evaluate on, ``heldout`` or ``validation``.
    """

    metrics: Mapping[str, Metric] = {
        "accuracy": Metric(title="right kind first %", percent=True),
        "hallucination_rate": Metric(title="second kind on one object %", percent=True),
        "object_recall": Metric(title="object recall %", percent=True),
        "exact": Metric(title="caption exactly right %", percent=True),
        "caption_words": Metric(title="words per caption"),
        "pairs_all": Metric(title="pairs, all %", percent=True),
        "pairs_multimodal": Metric(title="pairs, images %", percent=True),
        "pairs_math": Metric(title="pairs, math %", percent=True),
        "pairs_text": Metric(title="pairs, text %", percent=True),
        "chosen_logp": Metric(title="log-prob per token of the better response"),
    }

    start_title = "warm-up"

    def __init__(self, *, split: str = "heldout") -> None:
        self.split = split

    @property
    def settings(self) -> Mapping[str, Any]:
        """The split, and the number of threads and the number format, which affect single runs."""
        dtype = str(fastest_dtype()).removeprefix("torch.")
        return {"split": self.split, "threads": torch.get_num_threads(), "dtype": dtype}

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return no problems: the data files do not exist before `prepare` writes them."""
        return []

    def prepare(self, folder: Path, seed: int) -> DemoStart:
        """Assemble, align, warm up and evaluate the model of a seed."""
        start = prepare(folder, seed, split=self.split)
        return DemoStart(start=start, pairs=pairs_at_start(start))

    def start_values(self, start: DemoStart) -> Mapping[str, float]:
        """Return the metrics of the warmed-up model."""
        return values_of(start.start.warmup, start.pairs)

    def run(
        self, start: DemoStart, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train an arm and return its metrics."""
        outcome = tune(start.start, folder, recipe=recipe, overrides=overrides, before=start.pairs)
        return values_of(outcome.metrics, outcome.after)


def values_of(captions: CaptionMetrics, pairs: Mapping[str, PairResult]) -> dict[str, float]:
    """Return the metrics of a model by the names of `DemoRunner.metrics`."""
    names = ("accuracy", "hallucination_rate", "object_recall", "exact", "caption_words")
    values = {name: getattr(captions, name).value for name in names}
    for domain in ("all", *DOMAINS):
        results = [pair for pair in pairs.values() if domain in (pair.domain, "all")]
        values[f"pairs_{domain}"] = sum(pair.correct for pair in results) / len(results)
    values["chosen_logp"] = sum(pair.chosen_logp for pair in pairs.values()) / len(pairs)
    return values
