"""LLaVA-style models: LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision."""

from pathlib import Path
from typing import Any

from unidpo_mm.adapter import AdapterFamily, AdapterOptions

from ._image_adapter import ImageAdapter, ImageTraits
from ._image_sizing import FIXED, Sizing, with_size_limits
from ._model_types import image_type
from ._videos import VideoTraits

__all__ = ["ADAPTER"]

VIDEO_TYPE = "llava_onevision"
MODEL_TYPES = ("llava", "llava_next", VIDEO_TYPE)

IMAGE_KEYS = frozenset({"pixel_values", "image_sizes", "batch_num_images"})
VIDEO_KEYS = frozenset({"pixel_values_videos"})


def _create(processor: Any, config: Any, options: AdapterOptions) -> ImageAdapter:
    # Pixtral is a LLaVA model whose tower takes images of any size
    pixtral = config.vision_config.model_type == "pixtral"
    sizing = Sizing("side", ("size.longest_edge",), shrinks=True) if pixtral else FIXED
    limited = with_size_limits(processor, options, sizing, config.model_type)
    has_videos = config.model_type == VIDEO_TYPE
    traits = ImageTraits(
        image_keys=IMAGE_KEYS,
        placeholder=processor.image_token,
        resizable=sizing.shrinks,
        video=_video_traits(processor) if has_videos else None,
    )
    return ImageAdapter(limited, config, traits, options)


def _video_traits(processor: Any) -> VideoTraits | None:
    """Return the properties for videos, whose frames the model takes as one tensor per batch."""
    if getattr(processor, "video_processor", None) is None:
        return None
    return VideoTraits(keys=VIDEO_KEYS, placeholder=processor.video_token, exact=True)


def _tiny(folder: Path, *, model_type: str = "llava", seed: int = 0, **sizes: Any) -> Path:
    from ._tiny_llava import build

    return build(folder, model_type=model_type, seed=seed, **sizes)


ADAPTER = AdapterFamily(
    name="llava",
    model_types=MODEL_TYPES,
    serves=lambda config: config.model_type in MODEL_TYPES,
    auto_class="AutoModelForImageTextToText",
    needs_processor=True,
    parts={
        "vision_tower": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector", "model.image_newline"),
        "language_model": ("model.language_model", "lm_head"),
    },
    default_freeze=("vision_tower", "projector"),
    create=_create,
    tiny=_tiny,
    describe=lambda name: image_type(name, FIXED, videos=name == VIDEO_TYPE),
)
