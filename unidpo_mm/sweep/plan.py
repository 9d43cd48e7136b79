"""Read a sweep file, which states a recipe, arms and seeds.

recipe: quickstart/uni_dpo.yaml      # relative to this file, or the name of a shipped recipe
seeds: [0, 1, 2]
arms:
  full: []
  no w_qual: [loss.quality_weight=none]

With `factors` instead of `arms`, there is an arm for each combination of one level of each factor:

factors:
  rate: {slow: [train.learning_rate=1.0e-5], fast: [train.learning_rate=1.0e-4]}
  loss: {dpo: [loss.name=dpo], simpo: [loss.name=simpo]}
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ..config import Check, load_recipe
from ..config.problems import explain
from ..config.sections import Section
from ..config.shipped import shipped_recipe
from ..config.values import Name, Names, Seed, as_tuple
from ..config.yaml_loader import parse_yaml, read_text
from ..errors import Problem, RecipeError

__all__ = ["Sweep", "check_arms", "read_sweep"]


SET_BY_SWEEP = ("train.seed=", "data.seed=", "train.output_dir=", "run.resume=")
"""Keys that an arm cannot set: each run has a seed and directory of its own, and never resumes."""


def _check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("duplicate seed, which would count one run twice")
    return seeds


def _check_arm_names(arms: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if len({arm.lower() for arm in arms}) < len(arms):
        raise ValueError("the names of two arms differ only in case")
    return arms


ArmName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^|\[\]\n]+$")]
"""Without characters that have a meaning in tables."""


class Sweep(Section):
    """A sweep."""

    recipe: Name
    """Recipe of every arm: a path relative to the sweep file, or the name of a shipped recipe."""
    runner: Name = "recipe"
    """Name of the runner: `recipe` trains and evaluates, `demo` runs the quick-start."""
    seeds: Annotated[
        tuple[Seed, ...],
        BeforeValidator(as_tuple),
        AfterValidator(_check_seeds),
        Field(min_length=1),
    ]
    """Seeds that every arm is run with."""
    arms: Annotated[
        dict[ArmName, Names], AfterValidator(_check_arm_names), Field(default_factory=dict)
    ]
    """Arm -> keys of the recipe that it sets, as `section.key=value`."""
    factors: dict[ArmName, dict[ArmName, Names]] = Field(default_factory=dict)
    """Factor -> level -> keys that it sets; instead of `arms`."""

    @model_validator(mode="after")
    def _check_arms(self) -> "Sweep":
        if bool(self.arms) == bool(self.factors):
            raise ValueError("set arms, or factors, which are combined into arms, but not both")
        empty = [name for name, levels in self.factors.items() if not levels]
        if empty:
            raise ValueError(f"factors: '{empty[0]}' has no level")
        if self.factors:
            _check_factors(self.factors)
        return self


ABOUT = (
    f"the keys of a sweep are {', '.join(Sweep.model_fields)}; an arm is a list such as "
    "[loss.beta=1.0]"
)
"""Added to the remedy of every invalid value."""


def read_sweep(path: Path) -> Sweep:
    """Return the sweep in a YAML file, with an absolute path of the recipe; do not check the arms.

    Raises:
        RecipeError: With all problems of the file itself.
    """
    document = parse_yaml(read_text(path, "Use the path of a sweep file"), path.name)
    if document.problems:
        raise RecipeError(document.problems)
    try:
        sweep = Sweep.model_validate(document.data)
    except ValidationError as error:
        raise RecipeError(
            replace(problem, where=document.where(key), remedy=f"{problem.remedy}; {ABOUT}")
            for key, problem in explain(error, document.data, root=Sweep)
        ) from error
    recipe = path.parent / sweep.recipe
    if not recipe.is_file():
        recipe = shipped_recipe(sweep.recipe)
    named = {name: tuple(keys) for name, keys in sweep.arms.items()}
    arms = named or _combined(sweep.factors)
    return sweep.model_copy(update={"recipe": str(recipe.resolve()), "arms": arms})


def _check_factors(factors: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Raise ValueError if two arms have the same name, or two factors set the same key."""
    arms = _check_arm_names(_combined(factors))
    if len(arms) < math.prod(map(len, factors.values())):
        raise ValueError("factors: two combinations of levels have the same name")
    keys = {
        name: {override.partition("=")[0].strip() for keys in levels.values() for override in keys}
        for name, levels in factors.items()
    }
    for (first, left_keys), (second, right_keys) in itertools.combinations(keys.items(), 2):
        for left, right in itertools.product(left_keys, right_keys):
            if f"{left}.".startswith(f"{right}.") or f"{right}.".startswith(f"{left}."):
                text = f"factors: '{first}' sets {left}, and '{second}' sets {right}"
                raise ValueError(f"{text}, so that one replaces the other")


def _combined(factors: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, tuple[str, ...]]:
    """Return an arm for each combination of levels, such as ``fast, dpo``."""
    return {
        ", ".join(name for name, _ in levels): tuple(key for _, keys in levels for key in keys)
        for levels in itertools.product(*(level.items() for level in factors.values()))
    }


def check_arms(sweep: Sweep, checks: Sequence[Check]) -> None:
    """Check the recipe of every arm.

    Args:
        sweep: A sweep from `read_sweep`.
        checks: Checks of a recipe, as for `load_recipe`.

    Raises:
        RecipeError: With all problems of all arms.
    """
    problems = [problem for arm in sweep.arms for problem in _problems_of(sweep, arm, checks)]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _problems_of(sweep: Sweep, arm: str, checks: Sequence[Check]) -> list[Problem]:
    overrides = sweep.arms[arm]
    problems = [
        Problem(f"arm '{arm}', {override}", "the sweep sets this key itself", "Remove it")
        for override in overrides
        if override.startswith(SET_BY_SWEEP)
    ]
    try:
        load_recipe(sweep.recipe, overrides, checks=checks)
    except RecipeError as error:
        problems += [
            replace(problem, where=f"arm '{arm}', {problem.where}") for problem in error.problems
        ]
    return problems
