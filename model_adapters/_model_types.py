"""The properties of the model types of all families with images, for the list of models."""

from collections.abc import Mapping

from unidpo_mm.model_types import ModelType

from ._image_sizing import Sizing
from ._model_sizes import SIZES

__all__ = ["STATEFUL", "image_type"]

TITLES: Mapping[str, str] = {
    "aya_vision": "Aya Vision",
    "cohere2_vision": "Command-A Vision",
    "gemma3": "Gemma 3",
    "gemma4": "Gemma 4",
    "glm46v": "GLM-4.6V",
    "glm4v": "GLM-4V",
    "glm4v_moe": "GLM-4.5V",
    "idefics2": "Idefics2",
    "idefics3": "Idefics3",
    "internvl": "InternVL",
    "kimi_k25": "Kimi-VL (K2.5)",
    "lfm2_vl": "LFM2-VL",
    "llava": "LLaVA 1.5, Pixtral",
    "llava_next": "LLaVA-NeXT",
    "llava_next_video": "LLaVA-NeXT-Video",
    "llava_onevision": "LLaVA-OneVision",
    "minicpmv4_6": "MiniCPM-V 4.6",
    "mistral3": "Mistral 3",
    "ovis2": "Ovis2",
    "paligemma": "PaliGemma 1 and 2",
    "qwen2_5_omni_thinker": "Qwen2.5-Omni",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_moe": "Qwen3.5, mixture of experts",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL, mixture of experts",
    "smolvlm": "SmolVLM",
    "video_llama_3": "VideoLLaMA3",
}

STATEFUL = frozenset({"qwen3_5", "qwen3_5_moe", "lfm2_vl", "minicpmv4_6"})
"""Types with layers that carry a state from token to token, which would mix packed responses."""

EXPERTS = frozenset({"qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe", "kimi_k25"})
"""Types with experts in 3-d tensors, which LoRA does not adapt by default."""

CAVEATS: Mapping[str, str] = {
    "gemma4": "image size: 70, 140, 280, 560 or 1120",
    "llava": "Pixtral: longer side of an image in pixels",
    "llava_onevision": "videos of one length",
    "qwen2_5_omni_thinker": "the thinker alone, without speech",
    "smolvlm": "videos in rows without images; needs pip install 'unidpo-mm[smolvlm]'",
}


def image_type(
    name: str, sizing: Sizing, *, videos: bool = False, needs_images: bool = False
) -> ModelType:
    """Return the properties of a model type with images.

    Args:
        name: The model type.
        sizing: How it sizes images.
        videos: Whether its family encodes videos.
        needs_images: Whether every row needs an image.
    """
    unit = sizing.unit
    caveats = [
        CAVEATS.get(name, ""),
        "every row needs an image" if needs_images else "",
        "its layers carry a state" if name in STATEFUL else "",
        "LoRA adapts no experts" if name in EXPERTS else "",
    ]
    return ModelType(
        name=name,
        title=TITLES.get(name, name),
        images="several",
        videos=videos,
        image_unit=None if unit == "fixed" or unit == "unknown" else unit,
        packs=name not in STATEFUL,
        caveats=tuple(filter(None, caveats)),
        sizes=SIZES.get(name, ()),
    )
