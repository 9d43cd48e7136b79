"""Arguments of transformers' Trainer: names that passed away, and those that are ours to decide.

An argument that is not in this table passes through unchanged where the installed transformers has
it.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import Problem, RecipeError
from .draft import Draft
from .keys import Key, left_out

__all__ = ["ARGUMENTS", "complete_arguments", "resume", "training_arguments"]

GONE = "transformers 5 has no such argument, and nothing has to take its place"
SECRET = "no secret is written into a recipe: log in with `hf auth login`"
NOTHING_HELD_OUT = (
    "nothing is held out, so nothing is evaluated: set data.eval_fraction or data.eval_sources, "
    "and this again"
)


def resume(absent: str) -> Callable[[Any], str]:
    """Return the converter of `resume_from_checkpoint`.

    Args:
        absent: What null means there, ``auto`` or ``never``.
    """

    def convert(value: Any) -> str:
        if value is None or isinstance(value, bool):
            return absent if value is None else "auto" if value else "never"
        return str(value)

    return convert


def _warmup(value: Any) -> Any:
    if isinstance(value, int | float) and value >= 1:
        problem = f"the ratio {value} would warm up through the whole run"
        raise RecipeError(Problem("", problem, "Write a share of the steps below 1"))
    return value


ARGUMENTS: dict[str, Key] = {
    "output_dir": Key("train.output_dir"),
    "seed": Key(
        "train.seed",
        "also `data.seed`, by which rows are split and ordered",
        joint=True,
        quiet=True,
    ),
    "data_seed": Key("data.seed", joint=True),
    "warmup_ratio": Key(
        "train.warmup_steps",
        "a number below 1 is a share of all steps",
        convert=_warmup,
        quiet=True,
    ),
    "gradient_checkpointing": Key("train.activation_checkpointing"),
    "gradient_checkpointing_kwargs": Key(
        "train.activation_checkpointing_kwargs",
        "checkpoints are never reentrant, which changes no number",
        convert=lambda value: (
            {**value, "use_reentrant": False}
            if isinstance(value, dict) and "use_reentrant" in value
            else value
        ),
        quiet=True,
    ),
    "evaluation_strategy": Key("train.eval_strategy"),
    "no_cuda": Key("train.use_cpu"),
    "resume_from_checkpoint": Key("run.resume", convert=resume("auto")),
    "overwrite_output_dir": Key(
        "run.resume",
        "true is `never`; otherwise a run goes on from the last checkpoint",
        joint=True,
        quiet=True,
    ),
    **left_out(
        "batches are made of whole prompt groups in a shuffled order, every row once an epoch",
        "group_by_length train_sampling_strategy length_column_name dataloader_drop_last",
    ),
    **left_out(
        "rows keep their columns until the model's family encodes them",
        "label_names remove_unused_columns",
    ),
    **left_out(
        "it smooths the labels of a language-model loss: loss.label_smoothing is for preferences",
        "label_smoothing_factor",
    ),
    **left_out(
        "the mean of a step runs over all its pairs on all devices in any case",
        "average_tokens_across_devices",
    ),
    **left_out(
        "its kernels replace a plain model's loss and would do nothing here; logits exist for a "
        "piece of the answers at a time instead",
        "use_liger_kernel liger_kernel_config",
    ),
    **left_out(SECRET, "hub_token push_to_hub_token"),
    **left_out("write `hub_model_id`", "push_to_hub_model_id push_to_hub_organization"),
    **left_out("name the folder in the variable TENSORBOARD_LOGGING_DIR", "logging_dir"),
    **left_out(
        GONE,
        "save_safetensors half_precision_backend fp16_backend fp16_opt_level use_mps_device "
        "include_tokens_per_second include_inputs_for_metrics past_index ray_scope mp_parameters "
        "tpu_num_cores tpu_metrics_debug jit_mode_eval use_ipex torchdynamo dispatch_batches "
        "split_batches fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap tp_size",
    ),
}
"""Argument there -> what becomes of it, for every origin that does not say otherwise."""


@cache
def training_arguments() -> frozenset[str]:
    """Return the names of the arguments that the installed transformers takes."""
    from transformers import TrainingArguments  # takes seconds, so only where it is needed

    return frozenset(field.name for field in dataclasses.fields(TrainingArguments) if field.init)


def complete_arguments(draft: Draft) -> None:
    """Carry over the arguments that depend on several keys; the origin comes first."""
    seed, data_seed = draft.values.get("seed"), draft.values.get("data_seed")
    if "seed" in draft.values:
        draft.put("train.seed", seed, "seed")
    if data_seed is not None or seed is not None:
        draft.put("data.seed", seed if data_seed is None else data_seed, "data_seed", "seed")
    elif "data_seed" in draft.values:
        draft.leave_out("data_seed", "")
    _resume(draft)
    _evaluation(draft)


def _resume(draft: Draft) -> None:
    if draft.values.get("overwrite_output_dir") is not True:
        if "overwrite_output_dir" in draft.values:
            draft.leave_out("overwrite_output_dir", "write true or false there")
    elif draft.values.get("resume_from_checkpoint") in (None, False):
        draft.put("run.resume", "never", "overwrite_output_dir", "resume_from_checkpoint")
    else:
        draft.note("overwrite_output_dir", "the run goes on from the checkpoint that is named")
    folder = draft.get("train.output_dir")
    goes_on = draft.get("run.resume") in (None, "auto")
    if goes_on and isinstance(folder, str) and any(Path(folder).glob("checkpoint-*")):
        text = f"'{folder}' holds checkpoints, from which a run here would go on: name a new folder"
        draft.note("output_dir", text)


def _evaluation(draft: Draft) -> None:
    """Switch evaluation off where nothing is held out: transformers refuses to start then."""
    if draft.get("data.eval_sources") or draft.get("data.eval_fraction"):
        return
    for ours, off in (
        ("train.eval_strategy", "no"),
        ("train.load_best_model_at_end", False),
        ("train.eval_on_start", False),
        ("train.do_eval", False),
    ):
        value, keys = draft.get(ours), draft.sources.get(ours, ())
        if value is not None and value != off:
            draft.put(ours, off, *keys, comment="nothing is held out")
            for key in keys:
                draft.note(key, NOTHING_HELD_OUT)
