"""Runners of sweeps: their interface, and the one that trains and evaluates a recipe.

Other packages, such as the quick-start, add runners with entry points in `unidpo_mm.runners`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from ..config import Recipe, load_recipe
from ..errors import Problem, RecipeError
from ..plugins import suggestion

__all__ = ["Metric", "RecipeRunner", "Runner", "load_runner"]

RUNNER_GROUP = "unidpo_mm.runners"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of the table.

    Attributes:
        title: Its heading.
        percent: Whether values are rates, to show as percentages.
    """

    title: str
    percent: bool = False


class Runner(Protocol):
    """The interface of a runner, which trains and evaluates all arms of a seed."""

    metrics: Mapping[str, Metric]
    """Name of a metric -> how the table shows it, in the order of the columns."""
    start_title: str
    """Name of the common start in the table."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Other settings that results depend on, as JSON values; recorded with every run."""
        ...

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return why the recipe of an arm cannot be run."""
        ...

    def prepare(self, directory: Path, seed: int) -> Any:
        """Return the common start of a seed."""
        ...

    def start_values(self, start: Any) -> Mapping[str, float]:
        """Return the metrics of the start; empty if it is not evaluated."""
        ...

    def run(
        self, start: Any, recipe: Path, overrides: Sequence[str], directory: Path
    ) -> Mapping[str, float]:
        """Train an arm in a directory and return its metrics."""
        ...


class RecipeRunner:
    """The runner that trains the recipe and evaluates it on its held-out pairs."""

    metrics: Mapping[str, Metric] = {
        "eval_loss": Metric(title="loss"),
        "eval_unweighted_loss": Metric(title="unweighted DPO loss"),
        "eval_rewards/accuracies": Metric(title="reward accuracy %", percent=True),
        "eval_rewards/margins": Metric(title="reward margin"),
        "eval_logps/accuracies": Metric(title="likelier %", percent=True),
        "eval_logps/chosen_change": Metric(title="chosen log-prob change"),
    }
    start_title = "start"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return nothing: results depend on the recipe only."""
        return {}

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return why `train` would refuse the recipe, or why there is nothing to evaluate on."""
        from ..config.checks.recipe import check_environment, check_files, check_machine

        problems = [*check_environment(recipe), *check_files(recipe), *check_machine(recipe)]
        if not (recipe.data.eval_sources or recipe.data.eval_fraction):
            text = "no rows are held out, so a sweep has nothing to compare"
            problems.append(Problem("data.eval_fraction", text, "Set it, or data.eval_sources"))
        return problems

    def prepare(self, directory: Path, seed: int) -> int:
        """Return the seed: every arm starts from the model of the recipe."""
        return seed

    def start_values(self, start: int) -> Mapping[str, float]:
        """Return nothing: the start is not evaluated."""
        return {}

    def run(
        self, start: int, recipe: Path, overrides: Sequence[str], directory: Path
    ) -> Mapping[str, float]:
        """Train from scratch with the seed `start` and return the metrics of a final evaluation."""
        from ..training.run import train_from_recipe

        settings = [f"train.output_dir={directory}", f"train.seed={start}", f"data.seed={start}"]
        fresh = "run.resume=never"  # an old checkpoint may be that of another recipe
        trainer = train_from_recipe(load_recipe(recipe, [*overrides, *settings, fresh]))
        values: dict[str, float] = trainer.evaluate()
        return {name: values[name] for name in self.metrics if name in values}


def load_runner(name: str) -> Runner:
    """Return a runner by name.

    Raises:
        RecipeError: If no installed package has it.
    """
    if name == "recipe":
        return RecipeRunner()
    points = {point.name: point for point in entry_points(group=RUNNER_GROUP)}
    if name not in points:
        names = ["recipe", *points]
        problem = f"there is no runner '{name}'{suggestion(name, names)}"
        raise RecipeError(Problem("runner", problem, f"Use one of {', '.join(names)}"))
    runner: Runner = points[name].load()()
    return runner
