"""Finds the checkpoint a run goes on from, and refuses to go on with another recipe unasked."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import Problem, RecipeError
from ..recipe import Recipe, dump_recipe
from ..recipe.yaml_loader import parse_yaml

__all__ = ["RECIPE_FILE", "find_checkpoint"]

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
"""The resolved recipe of a run, in its output folder."""

SAME_RUN = ("train.", "run.")
"""Sections that may change on the way: more steps, other logs. The others make another run."""


def find_checkpoint(recipe: Recipe) -> str | None:
    """Returns the checkpoint to go on from, or None to start anew.

    Raises:
        RecipeError: If the checkpoints in the output folder come from another model, other data or
            another loss and `run.resume` does not name one of them.
    """
    from transformers.trainer_utils import get_last_checkpoint

    if recipe.run.resume == "never":
        return None
    if recipe.run.resume != "auto":
        return recipe.run.resume
    folder = Path(recipe.train.output_dir)
    last: str | None = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last is not None and (folder / RECIPE_FILE).is_file():
        _compare(folder / RECIPE_FILE, recipe, last)
    return last


def _compare(path: Path, recipe: Recipe, checkpoint: str) -> None:
    before = dict(_keys(parse_yaml(path.read_text(encoding="utf-8"), path.name).data))
    now = dict(_keys(parse_yaml(dump_recipe(recipe), path.name).data))
    changes = {
        key: f"{key} {_shown(before, key)} -> {_shown(now, key)}"
        for key in {**before, **now}
        if _shown(before, key) != _shown(now, key)
    }
    other_run = [text for key, text in changes.items() if not key.startswith(SAME_RUN)]
    if other_run:
        found = f"{checkpoint} was trained by another recipe ({'; '.join(other_run)})"
        remedy = (
            "Give this run its own train.output_dir, start anew with run.resume=never, or go on "
            f"all the same with run.resume={checkpoint}"
        )
        raise RecipeError(Problem("run.resume", found, remedy))
    of_training = [text for key, text in changes.items() if not key.startswith("run.")]
    if of_training:
        logger.warning("the recipe changed since the checkpoint: %s", "; ".join(of_training))


def _shown(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not set"


def _keys(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Returns every leaf of a document with its key path."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        place = f"{path}.{key}" if path else str(key)
        if isinstance(item, dict | list) and item:
            yield from _keys(item, place)
        else:
            yield place, item
