"""Check the data options of `UniDPOConfig` like those of a recipe, all at once."""

from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ..data.scores import ScoreOptions
from ..errors import Problem, RecipeError
from ..recipe.problems import explain
from ..recipe.sections import Scale, ScoresSection

__all__ = ["check_data_options", "score_options"]

SHARE_OPTIONS = ("eval_fraction", "max_skipped_fraction")
"""Options that are a share of the rows, at least 0 and below 1."""


def check_data_options(args: Any) -> None:
    """Check the options for reading data.

    Raises:
        RecipeError: If values are invalid; lists all of them.
    """
    problems = [*_choices(args), *_shares(args)]
    kinds: dict[str, Any] = {"scores": ScoresSection, "score_scale": Scale}
    for name, kind in kinds.items():
        value = getattr(args, name)
        try:
            if value is not None:
                TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            for path, problem in explain(error, value):
                where = ".".join(map(str, (name, *path)))
                problems.append(Problem(where, problem.message, problem.remedy))
    if problems:
        raise RecipeError(problems)


def score_options(args: Any) -> ScoreOptions:
    """Return the handling of scores; the options have been checked before."""
    return ScoreOptions(**ScoresSection.model_validate(args.scores or {}).model_dump())


def _choices(args: Any) -> list[Problem]:
    problems = []
    for name, kind in get_type_hints(type(args)).items():
        value: Any = getattr(args, name, None)
        if NoneType in get_args(kind):  # Literal[...] | None
            if value is None:
                continue
            kind = next(part for part in get_args(kind) if part is not NoneType)
        if get_origin(kind) is Literal and value not in get_args(kind):
            choices = ", ".join(map(str, get_args(kind)))
            problems.append(Problem(name, f"found {value!r}", f"Use one of {choices}"))
    return problems


def _shares(args: Any) -> list[Problem]:
    remedy = "Use a share of the rows, at least 0 and below 1"
    return [
        Problem(name, f"found {value!r}", remedy)
        for name in SHARE_OPTIONS
        if not (isinstance(value := getattr(args, name), int | float) and 0 <= value < 1)
    ]
