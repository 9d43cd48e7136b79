"""Run the quick-start in sweeps: the arms of a seed start from the same warmed-up model.

`configs/quickstart/comparison.yaml` and `ablations.yaml` are such sweeps. In their overrides,
`$DATA` is replaced by the data directory of the seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unidpo_mm.config import Recipe
from unidpo_mm.errors import Problem
from unidpo_mm.number_format import fastest_dtype
from unidpo_mm.sweep.runner import Metric

from .evaluation import Evaluation, evaluate
from .stages import Start, assemble, tune, warm_up

__all__ = ["DemoRunner"]


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

    def prepare(self, folder: Path, seed: int) -> Start:
        """Assemble and warm up the model of a seed."""
        start = assemble(folder, seed, split=self.split)
        return replace(start, model=warm_up(start))

    def start_values(self, start: Start) -> Mapping[str, float]:
        """Return the metrics of the warmed-up model."""
        return self._evaluate(start, start.model, start.folder / "eval").values()

    def run(
        self, start: Start, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train an arm and return its metrics."""
        tune(start, folder, recipe=recipe, overrides=overrides)
        return self._evaluate(start, folder, folder / "eval").values()

    @staticmethod
    def _evaluate(start: Start, model: Path, output: Path) -> Evaluation:
        dtype = str(fastest_dtype()).removeprefix("torch.")
        (result,) = evaluate({"model": model}, start.data, output, dtype=dtype)
        return result
