"""Arguments of transformers' Trainer: former names, and arguments that recipes replace.

An argument that the table does not list keeps its name, if the installed transformers has it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import Problem, RecipeError
from .conversion import Conversion, Converter
from .table import load_table

__all__ = ["CONVERT", "CONVERTERS", "KEYS"]


def _warmup(value: Any) -> Any:
    if isinstance(value, int | float) and value >= 1:
        problem = f"with a ratio of {value}, the whole run would be warm-up"
        raise RecipeError(Problem("", problem, "Use a share of the steps below 1"))
    return value


def _not_reentrant(value: Any) -> Any:
    is_stated = isinstance(value, dict) and "use_reentrant" in value
    return {**value, "use_reentrant": False} if is_stated else value


KEYS = load_table("trainer")

CONVERT: dict[str, Callable[[Any], Any]] = {"warmup": _warmup, "not_reentrant": _not_reentrant}
"""Functions of single values that tables name in `convert`."""


def _convert_seeds(conversion: Conversion) -> None:
    seed, data_seed = conversion.values.get("seed"), conversion.values.get("data_seed")
    if "seed" in conversion.values:
        conversion.set("train.seed", seed, "seed")
    if data_seed is not None or seed is not None:
        conversion.set("data.seed", seed if data_seed is None else data_seed, "data_seed", "seed")
    elif "data_seed" in conversion.values:
        conversion.skip("data_seed")


def _convert_overwriting(conversion: Conversion) -> None:
    if conversion.flag("overwrite_output_dir"):
        if conversion.values.get("resume_from_checkpoint") in (None, False):
            conversion.set("run.resume", "never", "overwrite_output_dir", "resume_from_checkpoint")
        else:
            conversion.note("overwrite_output_dir", "the run resumes from the stated checkpoint")
    directory = conversion.get("train.output_dir")
    resumes = conversion.get("run.resume") in (None, "auto")
    if resumes and isinstance(directory, str) and any(Path(directory).glob("checkpoint-*")):
        text = f"'{directory}' contains checkpoints to resume from; choose a new directory"
        conversion.note("output_dir", text)


def _disable_evaluation(conversion: Conversion) -> None:
    """Disable evaluation if no rows are held out: transformers would refuse to start."""
    if conversion.get("data.eval_sources") or conversion.get("data.eval_fraction"):
        return
    text = (
        "no rows are held out, so evaluation is disabled; set data.eval_fraction or "
        "data.eval_sources, then enable it again"
    )
    for name in ("eval_strategy", "load_best_model_at_end", "eval_on_start", "do_eval"):
        target, off = f"train.{name}", "no" if name == "eval_strategy" else False
        keys = conversion.sources.get(target, ())
        if conversion.get(target) not in (None, off):
            conversion.set(target, off, *keys, comment="no rows are held out")
            for key in keys:
                conversion.note(key, text)


CONVERTERS: dict[str, Converter] = {
    "seed": _convert_seeds,
    "overwrite": _convert_overwriting,
    "evaluation": _disable_evaluation,
}
"""Converters to run after those of the framework."""
