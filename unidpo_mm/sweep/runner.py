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
from ..recipe import Recipe, load_recipe

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
    start_title: str
    """What the table calls the common start."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else makes two runs the same, as JSON values; recorded with every run."""
        ...

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return what stands against running an arm's recipe, before anything runs."""
        ...

    def prepare(self, folder: Path, seed: int) -> Any:
        """Return what all arms of a seed start from."""
        ...

    def start_values(self, start: Any) -> Mapping[str, float]:
        """Return the figures of the start itself; empty where nothing is known of it."""
        ...

    def run(
        self, start: Any, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train one arm in `folder` and returns its figures."""
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
    start_title = "start"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Returns nothing: the recipe says it all."""
        return {}

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return what `train` would refuse, and a recipe that holds nothing out."""
        from ..training.recipe_checks import check_environment, check_files, check_machine

        problems = [*check_environment(recipe), *check_files(recipe), *check_machine(recipe)]
        if not (recipe.data.eval_sources or recipe.data.eval_fraction):
            problem = "nothing is held out, so a sweep has nothing to compare"
            problems.append(Problem("data.eval_fraction", problem, "Set it, or data.eval_sources"))
        return problems

    def prepare(self, folder: Path, seed: int) -> int:
        """Return the seed: every arm starts from the recipe's own model."""
        return seed

    def start_values(self, start: int) -> Mapping[str, float]:
        """Return nothing: the start is not evaluated apart."""
        return {}

    def run(
        self, start: int, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        """Train anew with the seed of `start` and returns what an evaluation at the end gives."""
        from ..training.run import train_from_recipe

        where = [f"train.output_dir={folder}", f"train.seed={start}", f"data.seed={start}"]
        anew = "run.resume=never"  # an old checkpoint may be that of another recipe
        trainer = train_from_recipe(load_recipe(recipe, [*overrides, *where, anew]))
        values: dict[str, float] = trainer.evaluate()
        return {name: values[name] for name in self.figures if name in values}


def load_runner(name: str) -> Runner:
    """Return a runner by name.

    Raises:
        RecipeError: If no installed package brings it.
    """
    if name == "recipe":
        return RecipeRunner()
    points = {point.name: point for point in entry_points(group=RUNNER_GROUP)}
    if name not in points:
        known = ["recipe", *points]
        problem = f"there is no runner '{name}'{suggestion(name, known)}"
        raise RecipeError(Problem("runner", problem, f"Choose one of {', '.join(known)}"))
    runner: Runner = points[name].load()()
    return runner
