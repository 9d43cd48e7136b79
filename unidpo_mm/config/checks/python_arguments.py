"""Check a `UniDPOConfig` like a recipe, so that Python and YAML refuse the same values."""

import logging
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from pydantic import ConfigDict, ValidationError

from ...errors import Problem, RecipeError, counted
from ...number_format import bfloat16_slowdown
from ..loss_aliases import resolve_loss
from ..numbers import unusable_numbers
from ..options import Options, option_types
from ..problems import explain
from ..sections import ScoreOptions, Section
from ..training_arguments import refused_values
from .argument_ranges import range_problems, warmup_problem
from .launch import TRUE_WORDS, launch_problems

__all__ = [
    "check_arguments",
    "check_processes",
    "check_steps",
    "choose_workers",
    "use_cpu_without_gpus",
]

logger = logging.getLogger(__name__)

FSDP_AT_START = os.environ.get("ACCELERATE_USE_FSDP", "")
"""The launcher's value, read on import: accelerate sets the variable later if it uses FSDP."""

GPU_WORKERS, GPU_PREFETCH = 4, 2
"""Number of data workers of a run on a GPU, and of batches that each prepares in advance. A step of
8 images of 1000 x 1000 pixels takes about as long as one worker needs for them."""

MIN_SLOWDOWN = 1.5
"""Minimum slowdown of bfloat16 for a warning."""


def check_arguments(args: Any) -> None:
    """Check that all arguments take effect and have sensible values.

    Raises:
        RecipeError: If some do not; lists all of them.
    """
    values = {field.name: getattr(args, field.name) for field in fields(args) if field.init}
    problems = [*refused_values(values), *range_problems(values, {})]
    problems += _option_problems(args) or _loss_problems(args)
    wrong = {problem.where for problem in problems}
    for path, problem in unusable_numbers(values):
        where = ".".join(map(str, path))
        if where not in wrong:
            problems.append(Problem(where, problem.message, problem.remedy))
    problems += launch_problems()
    if problems:
        raise RecipeError(problems)


class _ValidatedOptions(Options, Section):
    """The options as pydantic validates them, with the same errors as those of a recipe."""

    # pydantic reserves names that start with `model_` by default
    model_config = ConfigDict(protected_namespaces=())

    scores: ScoreOptions | None = None  # type: ignore[assignment] # a dict in Python


def _option_problems(args: Any) -> list[Problem]:
    """Validate the options of this package and convert their values, such as lists to tuples."""
    values = {name: getattr(args, name) for name in option_types()}
    try:
        validated = _ValidatedOptions.model_validate(values)
    except ValidationError as error:
        return [
            replace(problem, where=".".join(map(str, path)))
            for path, problem in explain(error, values, root=_ValidatedOptions)
        ]
    for name in values.keys() - {"scores"}:
        setattr(args, name, getattr(validated, name))
    return []


def _loss_problems(args: Any) -> Sequence[Problem]:
    try:
        resolve_loss(args)
    except RecipeError as error:
        return error.problems
    return ()


def check_steps(args: Any, max_steps: int) -> None:
    """Check that the warmup is not longer than the run, whose number of steps is now certain.

    Raises:
        RecipeError: If the learning rate would still rise when the run ends.
    """
    if args.warmup_steps > max_steps > 0:
        text, remedy = warmup_problem(args.warmup_steps, max_steps)
        raise RecipeError(Problem("train.warmup_steps", text, remedy))


def use_cpu_without_gpus(args: Any) -> None:
    """Select the CPU for several processes without a GPU, and warn if bfloat16 is slow on it.

    accelerate would otherwise let each process train alone, on all rows. DeepSpeed has a CPU
    accelerator of its own, with which processes communicate if the backend is gloo.
    """
    import torch

    several = int(os.environ.get("WORLD_SIZE") or 1) > 1
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in TRUE_WORDS
    if not torch.accelerator.is_available() and several:
        args.use_cpu = not (deepspeed and args.ddp_backend == "gloo")
    if args.bf16 and args.use_cpu:
        slowdown = bfloat16_slowdown()
        if slowdown > MIN_SLOWDOWN:
            logger.warning(
                "bf16 (train.bf16): this processor multiplies bfloat16 %.1f times slower than "
                "float32; set it to false, and model.dtype to float32",
                slowdown,
            )


def choose_workers(args: Any) -> None:
    """Choose the number of data workers, unless it is set.

    On a CPU, workers would compete with training. A GPU would wait for images to be decoded.
    """
    import torch

    if args.dataloader_num_workers is not None:
        return
    on_gpu = torch.cuda.is_available() and not args.use_cpu
    args.dataloader_num_workers = GPU_WORKERS if on_gpu else 0
    if on_gpu:
        args.dataloader_prefetch_factor = args.dataloader_prefetch_factor or GPU_PREFETCH


def check_processes(args: Any) -> None:
    """Check that the number of processes and the sharding are those that were requested.

    Raises:
        RecipeError: If the launcher started several processes and this one would train alone, or
            if FSDP was requested and would not be used.
    """
    requested = int(os.environ.get("WORLD_SIZE") or 1)
    if args.world_size != requested:
        started = counted(requested, "process was", "processes were")
        text = f"{started} started and this one would train in {args.world_size}"
        remedy = "Check use_cpu and the launcher, or unset WORLD_SIZE for one process"
        raise RecipeError(Problem("environment variable WORLD_SIZE", text, remedy))
    if FSDP_AT_START.lower() in TRUE_WORDS and (requested == 1 or args.device.type == "cpu"):
        where = "environment variable ACCELERATE_USE_FSDP"
        place = "the CPU" if args.device.type == "cpu" else "one process"
        text = f"FSDP is requested, and the run uses {place}, where no weights are sharded"
        remedy = "Unset it to train without sharding, or start several processes with GPUs"
        raise RecipeError(Problem(where, text, remedy))
