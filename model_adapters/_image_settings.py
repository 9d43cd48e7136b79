"""Settings of processors that the number of image tokens depends on, for messages.

A processor writes as many image tokens as it expects features from the model, which it computes
from settings of its own. If they disagree with those of the model, no image can be used.
"""

from collections.abc import Mapping
from typing import Any

from unidpo_mm.adapter import ImageSetting

__all__ = ["settings_of"]

IMAGE_PROCESSOR = "image_processor."
"""Prefix of the settings of the image processor; others are those of the processor."""

PATCHES = {"patch_size": "vision_config.patch_size"}
IMAGE_PATCHES = {"image_processor.patch_size": "vision_config.patch_size"}
LLAVA = {
    **PATCHES,
    "num_additional_image_tokens": "",
    "vision_feature_select_strategy": "vision_feature_select_strategy",
}
PINPOINTS = {"image_processor.image_grid_pinpoints": "image_grid_pinpoints"}
QWEN = {
    **IMAGE_PATCHES,
    "image_processor.merge_size": "vision_config.spatial_merge_size",
    "image_processor.temporal_patch_size": "vision_config.temporal_patch_size",
}

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "llava": LLAVA,
    "llava_next": LLAVA | PINPOINTS,
    "llava_next_video": LLAVA | PINPOINTS,
    "llava_onevision": {
        "num_image_tokens": "",
        "vision_feature_select_strategy": "vision_feature_select_strategy",
        "vision_aspect_ratio": "vision_aspect_ratio",
    }
    | PINPOINTS,
    **dict.fromkeys(
        (
            *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"),
            *("glm4v", "glm4v_moe", "glm46v", "qwen2_5_omni_thinker"),
        ),
        QWEN,
    ),
    "internvl": {"image_seq_length": "image_seq_length"},
    "gemma3": {"image_seq_length": "mm_tokens_per_image"},
    "gemma4": {
        **IMAGE_PATCHES,
        "image_processor.pooling_kernel_size": "vision_config.pooling_kernel_size",
        "image_processor.max_soft_tokens": "",
    },
    "mistral3": PATCHES | {"spatial_merge_size": "spatial_merge_size"},
    "idefics2": {"image_seq_len": "perceiver_config.resampler_n_latents"},
    "idefics3": {"image_seq_len": ""},
    "smolvlm": {"image_seq_len": ""},
    "paligemma": {"image_processor.image_seq_length": ""},
    "lfm2_vl": {
        "image_processor.encoder_patch_size": "vision_config.patch_size",
        "image_processor.downsample_factor": "downsample_factor",
    },
    "kimi_k25": IMAGE_PATCHES | {"image_processor.merge_size": ""},
    "aya_vision": {"patch_size": "", "img_size": ""},
    "cohere2_vision": {"image_processor.patch_size": ""},
    "ovis2": {"image_seq_length": ""},
    "minicpmv4_6": IMAGE_PATCHES | {"image_processor.downsample_mode": "downsample_mode"},
    "video_llama_3": IMAGE_PATCHES | {"image_processor.merge_size": ""},
}
"""Model type -> setting of the processor -> setting of the model with the same value; empty if it
follows from several."""


def settings_of(processor: Any, config: Any) -> tuple[ImageSetting, ...]:
    """Return the settings of a processor that the number of image tokens depends on.

    Args:
        processor: The processor.
        config: The configuration of the model, whose type may be one without known settings.
    """
    return tuple(
        ImageSetting(
            name=name.removeprefix(IMAGE_PROCESSOR),
            place="the image processor"
            if name.startswith(IMAGE_PROCESSOR)
            else "processor_config.json",
            value=_plain(_value(processor, name)),
            model_name=model_name,
            model_value=_plain(_value(config, model_name)) if model_name else None,
        )
        for name, model_name in SETTINGS.get(str(config.model_type), {}).items()
    )


def _value(holder: Any, path: str) -> Any:
    for name in path.split("."):
        holder = getattr(holder, name, None)
    return holder


def _plain(value: Any) -> Any:
    """Return a value in the form in which processors and models are compared.

    A size is a number, or two equal ones by name or in a list.
    """
    entries = value
    if isinstance(value, Mapping):
        entries = [entry for entry in value.values() if entry is not None]
    if not isinstance(entries, list | tuple):
        return value
    is_size = len(entries) == 2 and all(isinstance(entry, int) for entry in entries)
    if is_size and entries[0] == entries[1]:
        return entries[0]
    return [list(entry) if isinstance(entry, tuple) else entry for entry in entries]
