"""What one run of a sweep is: the protocol, and the runner that trains a recipe and evaluates.

Another package brings a runner by an entry point of the group `unidpo_mm.runners`, as the
quick-start does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from ..errors import Problem, RecipeError
from ..plugins import suggestion
from ..recipe import load_recipe

__all__ = ["Figure", "RecipeRunner", "Runner", "load_runner"]

RUNNER_GROUP = "unidpo_mm.runners"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One column of the table.

    Attributes:
        title: Its head.
        percent: Whether the value is a rate, to be shown in per cent.
    """

    title: str
    percent: bool = False


class Runner(Protocol):
    """Runs the arms of one seed from a common start."""

    figures: Mapping[str, Figure]
    """Name of a value -> how the table shows it, in order."""

    def prepare(self, folder: Path, seed: int) -> Any:
        """Returns what all arms of a seed start from."""
        ...

    def start_values(self, start: Any) -> Mapping[str, float]:
        """Returns the figures of the start itself; empty where nothing is known of it."""
        ...

    def run(
        self, start: Any, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Trains one arm in `folder` and returns its figures."""
        ...


class RecipeRunner:
    """Trains the recipe and evaluates it on its held-out pairs; the seed changes nothing else."""

    figures: Mapping[str, Figure] = {
        "eval_loss": Figure(title="loss"),
        "eval_unweighted_loss": Figure(title="unweighted DPO loss"),
        "eval_rewards/accuracies": Figure(title="reward accuracy %", percent=True),
        "eval_rewards/margins": Figure(title="reward margin"),
        "eval_logps/accuracies": Figure(title="likelier %", percent=True),
        "eval_logps/chosen_change": Figure(title="chosen log-prob change"),
    }

    def prepare(self, folder: Path, seed: int) -> int:
        """Returns the seed: every arm starts from the recipe's own model."""
        return seed

    def start_values(self, start: int) -> Mapping[str, float]:
        """Returns nothing: the start is not evaluated apart."""
        return {}

    def run(
        self, start: int, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Trains with the seed of `start` and returns what the last evaluation gives.

        Raises:
            RecipeError: If the recipe holds nothing out.
        """
        from ..training.run import train_from_recipe

        where = [f"train.output_dir={folder}", f"train.seed={start}", f"data.seed={start}"]
        trainer = train_from_recipe(load_recipe(recipe, [*overrides, *where]))
        if trainer.eval_dataset is None:
            found = "nothing is held out, so a sweep has nothing to compare"
            remedy = "Set data.eval_sources or data.eval_fraction"
            raise RecipeError(Problem(str(recipe), found, remedy))
        values: dict[str, float] = trainer.evaluate()
        return {name: values[name] for name in self.figures if name in values}


def load_runner(name: str) -> Runner:
    """Returns a runner by name.

    Raises:
        RecipeError: If no installed package brings it.
    """
    if name == "recipe":
        return RecipeRunner()
    points = {point.name: point for point in entry_points(group=RUNNER_GROUP)}
    if name not in points:
        known = ["recipe", *points]
        found = f"there is no runner '{name}'{suggestion(name, known)}"
        raise RecipeError(Problem("runner", found, f"Choose one of {', '.join(known)}"))
    runner: Runner = points[name].load()()
    return runner
