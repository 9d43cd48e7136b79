"""Run the study in sweeps: every arm trains the same language model on the pairs of one condition.

`configs/studies/` has the recipes and sweeps, docs/study.md the hypotheses and results. In the
overrides of an arm, `$DATA` is replaced by the data directory of the seed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.errors import Problem
from unidpo_mm.number_format import fastest_dtype
from unidpo_mm.sweep.runner import Metric

from .assets import fetch_assets
from .stages import dtype_overrides, train_quietly
from .study_rows import HELD_OUT, write_study
from .vlm import assemble_language_model
from .wrong_labels import METRICS, figures_of, wrong_rows

__all__ = ["StudyRunner", "StudyTuningRunner"]


FOLDER = Path(__file__).parent
RULES = ("exercises.py", "study_rows.py")
"""The modules that determine the pairs of a seed."""


@dataclass(frozen=True)
class StudyStart:
    """The start of all arms of a seed: the model, the data and the seed."""

    model: Path
    data: Path
    seed: int


class StudyRunner:
    """The runner of the study's text part, evaluated on held-out pairs whose labels are right."""

    split: ClassVar[str] = "heldout"

    metrics: Mapping[str, Metric] = {
        "eval_logps/accuracies": Metric(title="likelier %", percent=True),
        "eval_text/logps/accuracies": Metric(title="text %", percent=True),
        "eval_math/logps/accuracies": Metric(title="math %", percent=True),
        "eval_rewards/accuracies": Metric(title="reward accuracy %", percent=True),
        "eval_logps/chosen_change": Metric(title="chosen log-prob change"),
        **METRICS,
    }
    start_title = "before"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The split, a digest of the rules for pairs, threads and number format."""
        rules = b"".join((FOLDER / name).read_bytes() for name in RULES)
        return {
            "split": self.split,
            "rules": hashlib.sha256(rules).hexdigest()[:16],
            "threads": torch.get_num_threads(),
            "dtype": str(fastest_dtype()).removeprefix("torch."),
        }

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return no problems: the data files do not exist before `prepare` writes them."""
        return []

    def prepare(self, folder: Path, seed: int) -> StudyStart:
        """Write the data of a seed, and build the model once."""
        model = assemble_language_model(fetch_assets())
        write_study(folder / "data", seed=seed, split=self.split)
        return StudyStart(model, folder / "data", seed)

    def start_values(self, start: StudyStart) -> Mapping[str, float]:
        """Return nothing: a reward needs a policy that differs from its reference."""
        return {}

    def run(
        self, start: StudyStart, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train an arm, evaluate it, and return its metrics."""
        loaded = _loaded(start, recipe, overrides, folder)
        values = train_quietly(loaded).evaluate()
        (pairs,) = loaded.data.sources
        wrong = wrong_rows(Path(pairs.path), start.data / "clean.jsonl")
        values |= figures_of(folder, wrong)
        return {name: values[name] for name in self.metrics if name in values}


class StudyTuningRunner(StudyRunner):
    """The same runner on validation pairs, for tuning."""

    split: ClassVar[str] = "validation"


def _loaded(start: StudyStart, recipe: Path, overrides: Sequence[str], folder: Path) -> Recipe:
    held_out = f"{{path: {start.data / HELD_OUT}.jsonl, scores: {{scale: [0, 10]}}}}"
    return load_recipe(
        recipe,
        [
            f"model.name_or_path={start.model}",
            f"data.eval_sources=[{held_out}]",
            f"train.output_dir={folder}",
            f"train.seed={start.seed}",
            f"data.seed={start.seed}",
            "run.resume=never",
            *dtype_overrides(fastest_dtype()),
            *(override.replace("$DATA", str(start.data)) for override in overrides),
        ],
    )
