"""Qwen-VL-style models: Qwen2-VL, Qwen2.5-VL, Qwen3-VL and its mixture of experts."""

from pathlib import Path
from typing import Any

from unidpo_mm.adapter import AdapterFamily, AdapterOptions
from unidpo_mm.errors import ModelError, Problem

from ._image_adapter import ImageAdapter, ImageTraits
from ._images import with_pixel_limits

__all__ = ["ADAPTER"]

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")

IMAGE_KEYS = frozenset({"pixel_values", "image_grid_thw"})
"""The patches of all images in one list, and the grid of each image: time, height, width."""


def _create(processor: Any, config: Any, options: AdapterOptions) -> ImageAdapter:
    patch_size = getattr(processor.image_processor, "patch_size", None)
    expected: Any = config.vision_config.patch_size
    expected = expected[0] if isinstance(expected, list | tuple) else expected
    if patch_size not in (expected, None):  # a processor without patches is refused below
        problem = f"its image patches have {patch_size} pixels, and the model expects {expected}"
        remedy = "Pass the processor of the model, or remove the argument"
        raise ModelError(Problem("processing_class", problem, remedy))
    traits = ImageTraits(
        image_keys=IMAGE_KEYS,
        placeholder=f"<|vision_start|>{processor.image_token}<|vision_end|>",
        token_types="mm_token_type_ids",
        sends_positions=False,  # M-RoPE: the model computes three positions per token
    )
    return ImageAdapter(with_pixel_limits(processor, options), config, traits, options)


def _tiny(folder: Path, *, model_type: str = "qwen2_vl", seed: int = 0, **sizes: Any) -> Path:
    from ._tiny_qwen_vl import build

    return build(folder, model_type=model_type, seed=seed, **sizes)


ADAPTER = AdapterFamily(
    name="qwen_vl",
    model_types=MODEL_TYPES,
    serves=lambda config: config.model_type in MODEL_TYPES,
    auto_class="AutoModelForImageTextToText",
    needs_processor=True,
    parts={
        "vision_tower": ("model.visual",),
        "projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "language_model": ("model.language_model", "lm_head"),
    },
    default_freeze=("vision_tower", "projector"),
    create=_create,
    tiny=_tiny,
)
