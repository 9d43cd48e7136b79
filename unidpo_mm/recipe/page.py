"""Writes the page of all recipe keys, `docs/recipe.md`, from the docstrings of the sections."""

from collections.abc import Iterable
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from .sections import Recipe

__all__ = ["option_names", "recipe_page"]

INTRODUCTION = """# Recipe keys

Made from the docstrings in `unidpo_mm/recipe/sections.py`; a test keeps this page equal to them
(`python -m unidpo_mm.recipe.page > docs/recipe.md` writes it). Besides the keys below, `train`
accepts the arguments of `transformers.TrainingArguments` that
[training_arguments.md](training_arguments.md) lists as honored, and `loss` every parameter of the
loss it names (`unidpo-mm list losses`). Relative paths start at the folder of the recipe where they
exist there, else at the current folder. The last column says which field of `UniDPOConfig`, or
which argument of `UniDPOTrainer`, the key becomes.

| key | default | meaning | in Python |
| --- | --- | --- | --- |"""

IN_PYTHON = {
    "model.name_or_path": "`model`",
    "model.base_name_or_path": "`base_name_or_path`",
    "model.adapter": "`adapter`",
    "model.dtype": "`model_init_kwargs`",
    "model.freeze": "`freeze`",
    "model.lora": "`peft_config`",
    "model.attn_implementation": "`model_init_kwargs`",
    "model.layout": "`layout`",
    "model.prompt_style": "`prompt_style`",
    "model.chat_template_kwargs": "`chat_template_kwargs`",
    "model.image_min_pixels": "`image_min_pixels`",
    "model.image_max_pixels": "`image_max_pixels`",
    "model.trust_remote_code": "`model_init_kwargs`",
    "model.init_kwargs": "`model_init_kwargs`",
    "data.sources": "`train_dataset`",
    "data.sources.images": "`images`",
    "data.sources.reasoning": "`reasoning`",
    "data.sources.loss": "`loss_by_source`",
    "data.eval_sources": "`eval_dataset`",
    "data.eval_fraction": "`eval_fraction`",
    "data.max_length": "`max_length`",
    "data.seed": "`data_seed`",
    "data.sources.scores": "`scores`",
    "data.score_scale": "`score_scale`",
    "data.length_policy": "`length_policy`",
    "data.images.max_skipped_fraction": "`max_skipped_fraction`",
    "data.feature_cache_gb": "`feature_cache_gb`",
    "data.group_by_prompt": "`group_by_prompt`",
    "data.pair_weighting": "`pair_weighting`",
    "data.preflight": "`preflight`",
    "data.worker_timeout": "`worker_timeout`",
    "loss.name": "`loss_type`",
    "train.output_dir": "`output_dir`",
    "train.reference": "`reference`",
    "train.reference_build": "`reference_build`",
    "train.memory": "`memory`",
    "train.learning_rates": "`learning_rates`",
    "train.eval_generations": "`eval_generations`",
    "train.eval_max_new_tokens": "`eval_max_new_tokens`",
    "run.resume": "`train(resume_from_checkpoint)`",
    "run.allow_changes": "`allow_changes`",
    "run.on_nonfinite": "`on_nonfinite`",
    "run.callbacks": "`callbacks`",
}

INHERITED = {"model.lora.": "`peft_config`", "data.sources.scores.": "`scores`"}
"""Start of keys -> what all of them become in Python."""

FILES_ONLY = "recipes only"
"""What Python has no counterpart for: rows come as objects there."""

RESUME_NAMES = {
    "resume": "run.resume",
    "start_anew": "run.resume=never",
    "data_seed": "data.seed",
    "loss_kwargs": "loss",
    "data": "data",
    "eval_data": "eval_data",
    "model": "model",
    "processes": "processes",
    "versions": "versions",
}
"""What is no single field of `UniDPOConfig`, in messages about resuming."""


def option_names(fields: Iterable[str]) -> dict[str, str]:
    """Return the recipe key of each field of `UniDPOConfig`, for messages.

    Args:
        fields: Names of the fields; those without a key of their own stand in `train`.
    """
    keys = {
        text.strip("`"): key
        for key, text in IN_PYTHON.items()
        if list(IN_PYTHON.values()).count(text) == 1
    }
    return {name: keys.get(name, f"train.{name}") for name in fields} | RESUME_NAMES


def recipe_page() -> str:
    """Return the page as Markdown."""
    return "\n".join([INTRODUCTION, *_lines(Recipe, "")]) + "\n"


def _lines(section: type[BaseModel], prefix: str) -> list[str]:
    lines = []
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        inner = _section_in(field.annotation)
        if prefix or inner is None:
            python = IN_PYTHON.get(key) or next(
                (text for start, text in INHERITED.items() if key.startswith(start)), FILES_ONLY
            )
            text = " ".join((field.description or "").split())
            lines.append(f"| `{key}` | {_default(field)} | {text} | {python} |")
        if inner is not None and name != "eval_sources":
            lines += _lines(inner, f"{key}.")
    return lines


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple | list | dict):
        return "`{}`" if isinstance(value, dict) else "`[]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds: itself, in a list, or optional."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is tuple or isinstance(annotation, UnionType):
        return next((found for part in get_args(annotation) if (found := _section_in(part))), None)
    return None


if __name__ == "__main__":
    print(recipe_page(), end="")  # noqa: T201 - it is what the command is for
