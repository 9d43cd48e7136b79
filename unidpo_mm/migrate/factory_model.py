"""LLaMA-Factory's keys of the model: parts that train, LoRA, number formats, templates."""

from typing import Any

from ..errors import Problem, RecipeError
from ..recipe.problems import describe
from .draft import Draft
from .keys import as_list

__all__ = ["PIXELS", "attention", "complete_model"]

PIXELS = "a family whose images have one size refuses pixel limits: leave both out for it"
ATTENTION = {
    "auto": None,
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
}
PATTERN = "the frozen parts have modules of these names too"
PARTS = {
    "freeze_vision_tower": "vision_tower",
    "freeze_multi_modal_projector": "projector",
    "freeze_language_model": "language_model",
}
IMAGE_KEYS = (*PARTS, "image_max_pixels", "image_min_pixels", "media_dir", "train_mm_proj_only")
"""Keys that only a file for a vision-language model has."""


def attention(value: Any) -> Any:
    """Return the attention kernel as transformers names it; None is its default.

    Raises:
        RecipeError: If there is none of that name.
    """
    if not isinstance(value, str) or value not in ATTENTION:
        problem = f"{describe(value)} is no attention kernel there"
        raise RecipeError(Problem("", problem, f"Write one of {', '.join(ATTENTION)}"))
    return ATTENTION[value]


def complete_model(draft: Draft) -> None:
    """Carry over what trains and in which numbers; the data comes first."""
    sources = draft.get("data.sources") or []
    images = any(key in draft.values for key in IMAGE_KEYS)
    images = images or any("images" in source for source in sources)
    frozen = _freeze(draft, images)
    _method(draft, frozen, images)
    if images:
        for key in ("image_max_pixels", "image_min_pixels"):
            stated = key in draft.values
            default = "" if stated else f"{draft.owner} default; not where images have one size"
            draft.put(f"model.{key}", draft.value(key), key, comment=default)
            if stated:
                draft.note(key, PIXELS)
    _number_formats(draft)
    _template(draft)


def _freeze(draft: Draft, images: bool) -> list[str]:
    """Return the parts that do not train, and states them where there are images."""
    frozen = [part for key, part in PARTS.items() if draft.value(key)]
    if draft.values.get("train_mm_proj_only") is True:
        frozen = ["vision_tower", "language_model"]
    elif "train_mm_proj_only" in draft.values:
        draft.leave_out("train_mm_proj_only", "write true or false there")
    if len(frozen) == len(PARTS):
        remedy = "Let one part train"
        draft.problem("freeze_language_model", "every part of the model is frozen", remedy)
    if images:  # a text model has no such parts, and a family freezes the first two by itself
        keys = (*PARTS, "train_mm_proj_only") if frozen else tuple(PARTS)
        draft.put("model.freeze", frozen, *keys)
    return frozen


def _method(draft: Draft, frozen: list[str], images: bool) -> None:
    method = draft.value("finetuning_type")
    if method not in ("lora", "full"):
        problem = (
            f"'{method}' trains neither a LoRA nor whole parts of the model, which is not built"
        )
        draft.problem("finetuning_type", problem, "Write lora or full")
    elif method == "full":
        draft.put("model.lora", None, "finetuning_type")
        for key in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"):
            if key in draft.values:
                draft.note(key, "there is no LoRA in full fine-tuning, so it has no effect")
    else:
        _lora(draft, frozen, images)


def _lora(draft: Draft, frozen: list[str], images: bool) -> None:
    rank = draft.number("lora_rank")
    draft.put("model.lora.r", rank, "lora_rank")
    draft.put("model.lora.alpha", draft.values.get("lora_alpha") or 2 * rank, "lora_alpha")
    if "lora_dropout" in draft.values:
        draft.put("model.lora.dropout", draft.value("lora_dropout"), "lora_dropout")
    targets = _targets(draft, frozen, images)
    comment = PATTERN if targets == _pattern(draft) else ""
    draft.put("model.lora.targets", targets, "lora_target", comment=comment)
    draft.carried.add("finetuning_type")
    if "additional_target" in draft.values:
        names = as_list(draft.values["additional_target"])
        draft.put("model.lora.modules_to_save", names, "additional_target")


def _targets(draft: Draft, frozen: list[str], images: bool) -> Any:
    """Return the LoRA's targets; modules are looked for in the parts that train only."""
    names = as_list(draft.value("lora_target"))
    language, tower = "language_model" not in frozen, "vision_tower" not in frozen
    if names == ["all"]:
        if language and tower:
            draft.note(
                "lora_target", "`all-linear` reaches the projector too: name modules, or a part"
            )
            return "all-linear"
        return "vision_tower" if tower else "language_model"
    if images and language and not tower:
        return _pattern(draft)
    return names


def _pattern(draft: Draft) -> str:
    """Return what PEFT takes for the named modules of the language model: a text is a pattern."""
    return rf".*language_model.*\.(?:{'|'.join(as_list(draft.value('lora_target')))})"


def _number_formats(draft: Draft) -> None:
    """Weights are loaded in the precision of the run; those that train become float32."""
    for key, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        if key in draft.values:
            draft.put(f"train.{key}", draft.values[key], key)
        if draft.values.get(key) is True:
            comment = f"as it is loaded there under {key}"
            draft.put("model.dtype", dtype, key, comment=comment)
    if draft.values.get("pure_bf16") is True:
        draft.put("model.dtype", "bfloat16", "pure_bf16")
        if "bf16" in draft.values:
            draft.put("train.bf16", False, "bf16", comment="pure_bf16")
        draft.note("pure_bf16", draft.keys["pure_bf16"].text)
    elif "pure_bf16" in draft.values:
        draft.leave_out("pure_bf16", "write true or false there")


def _template(draft: Draft) -> None:
    name = draft.values.get("template")
    if name is not None:
        draft.put("model.prompt_style", "raw" if name == "empty" else "chat", "template")
        draft.note("template", draft.keys["template"].text)
    elif "template" in draft.values:
        draft.put("model.prompt_style", "auto", "template")
