"""Reads a sweep file: which recipe, which arms, which seeds.

recipe: quickstart/uni_dpo.yaml      # a path beside this file, or a shipped recipe
seeds: [0, 1, 2]
arms:
  full: []
  no w_qual: [loss.quality_weight=none]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from ..errors import Problem, RecipeError
from ..recipe import Check, load_recipe
from ..recipe.problems import explain_settings
from ..recipe.sections import Name, Names, Section
from ..recipe.shipped import shipped_recipe
from ..recipe.yaml_loader import Document, parse_yaml

__all__ = ["Sweep", "check_arms", "read_sweep"]


SET_BY_SWEEP = ("train.seed=", "data.seed=", "train.output_dir=", "run.resume=")
"""Keys that an arm cannot set: each run has its own seed, its own folder, and starts anew."""


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is named twice, which would make one run count as two")
    return seeds


def _distinct_arms(arms: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if len({arm.lower() for arm in arms}) < len(arms):
        raise ValueError("two arms have the same name but for capitals")
    return arms


Seed = Annotated[int, Field(ge=0, lt=2**32)]
ArmName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^|\[\]\n]+$")]
"""No sign that a table takes for its own."""


class Sweep(Section):
    """What a sweep runs."""

    recipe: Name
    """The recipe that every arm starts from: a path beside the sweep file, or a shipped recipe."""
    runner: Name = "recipe"
    """What a run is; `recipe` trains and evaluates, `demo` is the quick-start with its figures."""
    seeds: Annotated[
        tuple[Seed, ...],
        BeforeValidator(_as_tuple),
        AfterValidator(_distinct),
        Field(min_length=1),
    ]
    """Every arm runs once with each of them."""
    arms: Annotated[dict[ArmName, Names], AfterValidator(_distinct_arms), Field(min_length=1)]
    """Arm -> the keys of the recipe that it sets, `section.key=value`."""


def read_sweep(path: Path) -> Sweep:
    """Return the sweep of a YAML file, its recipe as an absolute path; the arms are not checked.

    Raises:
        RecipeError: With every problem of the file itself.
    """
    document = parse_yaml(_read(path), path.name)
    if document.problems:
        raise RecipeError(document.problems)
    try:
        sweep = Sweep.model_validate(document.data)
    except ValidationError as error:
        raise RecipeError(_explain(error, document)) from error
    beside = path.parent / sweep.recipe
    recipe = beside if beside.is_file() else shipped_recipe(sweep.recipe)
    return sweep.model_copy(update={"recipe": str(recipe.resolve())})


def check_arms(sweep: Sweep, checks: Sequence[Check]) -> None:
    """Read the recipe of every arm.

    Args:
        sweep: As `read_sweep` returns it.
        checks: Checks of the recipe of an arm, as for `load_recipe`.

    Raises:
        RecipeError: With every problem of every arm.
    """
    problems = [problem for arm in sweep.arms for problem in _problems_of(sweep, arm, checks)]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        problem = Problem(str(path), f"it cannot be read: {reason}", "Give the path of a sweep")
        raise RecipeError(problem) from error


def _explain(error: ValidationError, document: Document) -> list[Problem]:
    keys = list(Sweep.model_fields)
    about = f"a sweep has the keys {', '.join(keys)}; an arm is a list such as [loss.beta=1.0]"
    return [
        Problem(document.where(path), problem.message, f"{problem.remedy}; {about}")
        for path, problem in explain_settings(error, document.data, keys)
    ]


def _problems_of(sweep: Sweep, arm: str, checks: Sequence[Check]) -> list[Problem]:
    overrides = sweep.arms[arm]
    problems = [
        Problem(f"arm '{arm}', {written}", "the sweep sets this key itself", "Leave it out")
        for written in overrides
        if written.startswith(SET_BY_SWEEP)
    ]
    try:
        load_recipe(sweep.recipe, overrides, checks=checks)
    except RecipeError as error:
        problems += [
            Problem(f"arm '{arm}', {problem.where}", problem.message, problem.remedy)
            for problem in error.problems
        ]
    return problems
