"""LLaMA-Factory's keys of the model: trained parts, LoRA, sizes of images and videos, precision."""

from typing import Any

from .conversion import Conversion
from .lora import convert_kind
from .table import as_list

__all__ = ["convert_image_size", "convert_parts", "convert_precision", "convert_videos"]

PARTS = {
    "freeze_vision_tower": "vision_tower",
    "freeze_multi_modal_projector": "projector",
    "freeze_language_model": "language_model",
}
IMAGE_KEYS = (*PARTS, "image_max_pixels", "image_min_pixels", "media_dir", "train_mm_proj_only")
"""Keys that only a file for a vision-language model has."""
VIDEO_KEYS = ("video_fps", "video_maxlen", "video_max_pixels")


def _has_images(conversion: Conversion) -> bool:
    return any(key in conversion.values for key in IMAGE_KEYS)


def convert_image_size(conversion: Conversion) -> None:
    """Set the limits of the image size of a vision-language model."""
    if not _has_images(conversion):
        return
    for key in ("image_max_pixels", "image_min_pixels"):
        is_stated = key in conversion.values
        comment = "" if is_stated else "LLaMA-Factory's default; only if the unit is pixels"
        size = f"{conversion.number(key)} pixels"
        conversion.set(conversion.keys[key].target, size, key, comment=comment)
        if is_stated:
            conversion.note(key)


def convert_videos(conversion: Conversion, *, has_videos: bool = False) -> None:
    """Set how frames of videos are sampled: what the file states or, for videos, all of it."""
    for key in VIDEO_KEYS:
        is_stated = key in conversion.values
        if is_stated or has_videos:
            conversion.set(conversion.keys[key].target, conversion.value(key), key)
        if is_stated and conversion.keys[key].note:
            conversion.note(key)


def convert_parts(conversion: Conversion) -> None:
    """Convert what is trained: parts of the model, in full or by a LoRA adapter."""
    values, frozen = conversion.values, _frozen_parts(conversion)
    method = conversion.value("finetuning_type")
    if method == "full":
        conversion.set("model.lora", None, "finetuning_type")
        for key in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"):
            if key in values:
                conversion.note(key, "has no effect: full fine-tuning has no LoRA")
        return
    if method != "lora":
        text = f"'{method}' is not supported: it trains neither LoRA nor complete parts"
        conversion.problem("finetuning_type", text, "Use lora or full")
        return
    conversion.used_keys.add("finetuning_type")
    rank = conversion.number("lora_rank")
    conversion.set("model.lora.r", rank, "lora_rank")
    conversion.set("model.lora.alpha", values.get("lora_alpha") or 2 * rank, "lora_alpha")
    if "lora_dropout" in values:
        conversion.set("model.lora.dropout", values["lora_dropout"], "lora_dropout")
    convert_kind(conversion)
    if conversion.flag("pissa_init"):
        approximated = conversion.value("pissa_iter") != -1
        start = "pissa_niter_16" if approximated else "pissa"
        conversion.set("model.lora.init", start, "pissa_init", "pissa_iter")
    if conversion.values.get("quantization_bit"):
        bits = conversion.number("quantization_bit")
        conversion.set("model.quantization.bits", bits, "quantization_bit")
    _set_targets(conversion, frozen)
    if "additional_target" in values:
        modules = as_list(values["additional_target"])
        conversion.set("model.lora.modules_to_save", modules, "additional_target")


def _frozen_parts(conversion: Conversion) -> list[str]:
    """Return the frozen parts; set them for a vision-language model."""
    frozen = [part for key, part in PARTS.items() if conversion.value(key)]
    if conversion.flag("train_mm_proj_only"):
        frozen = ["vision_tower", "language_model"]
    if len(frozen) == len(PARTS):
        text = "every part of the model is frozen"
        conversion.problem("freeze_language_model", text, "Train at least one part")
    if _has_images(conversion):  # a text model has no such parts
        keys = (*PARTS, "train_mm_proj_only") if frozen else tuple(PARTS)
        conversion.set("model.freeze", frozen, *keys)
    return frozen


def _set_targets(conversion: Conversion, frozen: list[str]) -> None:
    """Set the targets of LoRA; LLaMA-Factory looks for modules in trained parts only."""
    targets: Any = as_list(conversion.value("lora_target"))
    comment = ""
    language, tower = "language_model" not in frozen, "vision_tower" not in frozen
    if targets == ["all"] and language and tower:
        targets = "all-linear"
        text = "`all-linear` includes the projector; set modules or a part to exclude it"
        conversion.note("lora_target", text)
    elif targets == ["all"]:
        targets = "vision_tower" if tower else "language_model"
    elif _has_images(conversion) and language and not tower:
        targets = rf".*language_model.*\.(?:{'|'.join(targets)})"  # a text is a pattern for PEFT
        comment = "frozen parts have modules with these names too"
    conversion.set("model.lora.targets", targets, "lora_target", comment=comment)


def convert_precision(conversion: Conversion) -> None:
    """Convert the precision: weights are loaded in that of the run, trained ones in float32."""
    values = conversion.values
    for key, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        if key in values:
            conversion.set(f"train.{key}", values[key], key)
        if values.get(key) is True:
            comment = f"LLaMA-Factory loads it so with {key}"
            conversion.set("model.dtype", dtype, key, comment=comment)
    if conversion.flag("pure_bf16"):
        conversion.set("model.dtype", "bfloat16", "pure_bf16")
        if "bf16" in values:
            conversion.set("train.bf16", False, "bf16", comment="because of pure_bf16")
        conversion.note("pure_bf16")
