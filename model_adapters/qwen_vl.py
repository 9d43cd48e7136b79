"""Qwen-VL-style models: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5, GLM-4V, GLM-4.5V and GLM-4.6V."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from unidpo_mm.adapter import AdapterFamily, AdapterOptions, place_of
from unidpo_mm.errors import Problem, ProcessorError

from ._image_adapter import ImageAdapter, ImageTraits
from ._image_sizing import PIXELS, with_size_limits
from ._model_types import image_type
from ._qwen_tower import tower_inputs
from ._videos import VideoTraits, with_small_frames

__all__ = ["ADAPTER"]

QWEN_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
GLM_TYPES = ("glm4v", "glm4v_moe", "glm46v")
MODEL_TYPES = QWEN_TYPES + GLM_TYPES

IMAGE_KEYS = frozenset({"pixel_values", "image_grid_thw"})
"""The patches of all images in one list, and the grid of each image: time, height, width."""
VIDEO_KEYS = frozenset({"pixel_values_videos", "video_grid_thw", "second_per_grid_ts"})
"""The same for videos, and for Qwen2.5-VL the seconds between two patches of a video."""


def _create(processor: Any, config: Any, options: AdapterOptions) -> ImageAdapter:
    patch_size = getattr(processor.image_processor, "patch_size", None)
    expected: Any = config.vision_config.patch_size
    expected = expected[0] if isinstance(expected, list | tuple) else expected
    if patch_size not in (expected, None):  # a processor without patches is refused below
        problem = f"its image patches have {patch_size} pixels, and the model expects {expected}"
        remedy = "Use the processor of the model, or correct patch_size of the image processor"
        raise ProcessorError(Problem(place_of(processor), problem, remedy))
    traits = ImageTraits(
        image_keys=IMAGE_KEYS,
        placeholder=_placeholder(config.model_type, processor.image_token),
        token_types="mm_token_type_ids",
        sends_positions=False,  # M-RoPE: the model computes three positions per token
        video=_video_traits(processor, config),
        tower=partial(tower_inputs, config.vision_config)
        if config.model_type in QWEN_TYPES
        else None,
    )
    # GLM counts the pixels of both frames of a temporal patch, of which an image fills one patch
    frames = config.vision_config.temporal_patch_size if config.model_type in GLM_TYPES else 1
    sizing = dataclasses.replace(PIXELS, frames=frames)
    limited = with_size_limits(processor, options, sizing, config.model_type)
    if traits.video is not None:
        limited = with_small_frames(limited, options.video_max_pixels)
    return ImageAdapter(limited, config, traits, options)


def _video_traits(processor: Any, config: Any) -> VideoTraits | None:
    """Return the properties for videos; `None` if they are not supported.

    In GLM models, images and videos share a token, so that a row cannot contain both.
    """
    video_processor = getattr(processor, "video_processor", None)
    if config.model_type not in QWEN_TYPES or video_processor is None:
        return None
    return VideoTraits(
        keys=VIDEO_KEYS,
        placeholder=f"<|vision_start|>{processor.video_token}<|vision_end|>",
        step=video_processor.patch_size * video_processor.merge_size,
    )


def _placeholder(model_type: str, image_token: str) -> str:
    """Return the text of an image between the marks of its family."""
    if model_type in GLM_TYPES:
        return f"<|begin_of_image|>{image_token}<|end_of_image|>"
    return f"<|vision_start|>{image_token}<|vision_end|>"


def _tiny(folder: Path, *, model_type: str = "qwen2_vl", seed: int = 0, **sizes: Any) -> Path:
    if model_type in GLM_TYPES:
        from ._tiny_glm import build
    else:
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
    describe=lambda name: image_type(name, PIXELS, videos=name in QWEN_TYPES),
)
