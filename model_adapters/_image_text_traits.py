"""Traits of the model types of the family `image_text`, and reasons why others are not served.

An entry says which tensors the processor returns for images, in which unit the model counts their
features, which token types it needs, and how it sizes images. Everything else is the same for all
of these types.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._image_sizing import FIXED, PIXELS, SIDE, TILES, Sizing
from ._images import feature_token_id

__all__ = ["TYPES", "TypeTraits", "why_unserved"]


@dataclass(frozen=True, kw_only=True)
class TypeTraits:
    """Properties of a model type.

    Attributes:
        image_keys: Tensors that the processor returns for images and the model accepts.
        unit_key: The tensor with one entry per part in which the model returns features (tiles or
            rows); `None` if it returns them per image.
        token_types: The model input that marks image tokens; `None` if the model needs none.
        marks_images: Whether image tokens have the type 1; they are of type 0 otherwise.
        response_type: The token type of responses.
        joined_last: Tensors [1, ..., N] that are joined along their last dimension.
        sends_positions: Whether the model gets one position per token; False for models that
            compute multi-dimensional positions themselves.
        needs_images: Whether the processor refuses rows without images.
        sizing: How the processor limits the size of an image.
        placeholder: The text of an image in a prompt without chat template, where ``{}`` stands for
            the image token.
        dropped: Tensors that the processor returns and the model does not take.
        videos: Whether videos are supported, whose frames are images for the model.
        videos_with_images: Whether a row may contain both images and videos.
        rounds_pixels, replaces_image_token: See `ImageTraits`.
    """

    image_keys: tuple[str, ...] = ("pixel_values",)
    unit_key: str | None = None
    token_types: str | None = None
    marks_images: bool = True
    response_type: int = 0
    joined_last: frozenset[str] = frozenset()
    sends_positions: bool = True
    needs_images: bool = False
    sizing: Sizing = FIXED
    placeholder: str = "{}"
    dropped: frozenset[str] = frozenset()
    videos: bool = False
    videos_with_images: bool = True
    rounds_pixels: bool = True
    replaces_image_token: bool = False


TILED = TypeTraits(unit_key="pixel_values", sizing=TILES)
IMAGE_ROWS = TypeTraits(
    image_keys=("pixel_values", "pixel_attention_mask"), unit_key="pixel_values", sizing=SIDE
)
"""The tiles of all images of a prompt in one row, padded with blank tiles."""
MINICPM = TypeTraits(
    image_keys=("pixel_values", "target_sizes"),
    unit_key="target_sizes",
    joined_last=frozenset({"pixel_values"}),
    sizing=Sizing("tiles", ("max_slice_nums",)),
)

TYPES: Mapping[str, TypeTraits] = {
    "internvl": dataclasses.replace(TILED, videos=True),
    "gemma3": TypeTraits(
        token_types="token_type_ids", unit_key="pixel_values", replaces_image_token=True
    ),
    "gemma4": TypeTraits(
        image_keys=("pixel_values", "image_position_ids"),
        token_types="mm_token_type_ids",
        sizing=Sizing("tokens", ("max_soft_tokens",)),
        dropped=frozenset({"num_soft_tokens_per_image"}),
        rounds_pixels=False,  # its tower scales them first
    ),
    "mistral3": TypeTraits(
        image_keys=("pixel_values", "image_sizes"),
        sizing=Sizing("side", ("size.longest_edge",), shrinks=True),
    ),
    "idefics2": IMAGE_ROWS,
    "idefics3": IMAGE_ROWS,
    # its processor replaces the tensor of images by that of videos
    "smolvlm": dataclasses.replace(IMAGE_ROWS, videos=True, videos_with_images=False),
    "paligemma": TypeTraits(
        token_types="token_type_ids",
        marks_images=False,  # images and prompt are a prefix with attention in both directions
        response_type=1,
        needs_images=True,
        replaces_image_token=True,
    ),
    "lfm2_vl": TypeTraits(
        image_keys=("pixel_values", "pixel_attention_mask", "spatial_shapes"),
        unit_key="spatial_shapes",
        sizing=Sizing("tiles", ("max_tiles",)),
    ),
    "kimi_k25": TypeTraits(
        image_keys=("pixel_values", "image_grid_thw"),
        sizing=Sizing("patches", ("max_patches",), shrinks=True),
        placeholder="<|media_begin|>image<|media_content|>{}<|media_end|>",
    ),
    "aya_vision": TILED,
    "cohere2_vision": TILED,
    "ovis2": TILED,
    "minicpmv4_6": MINICPM,
    "llava_next_video": TypeTraits(image_keys=("pixel_values", "image_sizes")),
    "video_llama_3": TypeTraits(
        image_keys=("pixel_values", "image_grid_thw", "image_merge_sizes"), sizing=PIXELS
    ),
    "qwen2_5_omni_thinker": TypeTraits(
        image_keys=("pixel_values", "image_grid_thw"),
        sends_positions=False,
        sizing=PIXELS,
        placeholder="<|vision_bos|>{}<|vision_eos|>",
    ),
}
"""The traits of each model type that the family was tested with."""

INNER_HEAD = (
    "its language model contains the output head, so hidden states, which log-probs are computed "
    "from, are not accessible"
)
QFORMER = "its features of an image depend on the text of the prompt, so they cannot be shared"
CODEBOOK = "its images become tokens of a codebook, so there are no features to compute once"

REASONS: Mapping[str, str] = {
    "llama4": INNER_HEAD,
    "blip-2": INNER_HEAD,
    "hunyuan_vl": "its positions number the images of a batch, so a response depends on the other "
    "rows of its batch",
    "step3p7": "its processor returns the details of large images in a tensor of their own, of "
    "which other images have none",
    "molmo2": "its image tensors contain indices into all images of a batch",
    "video_llava": "its processor returns images under a name that the model does not accept",
    "qwen2_5_omni": "it also contains a speech model, which would be lost; a checkpoint of its "
    "thinker (qwen2_5_omni_thinker) can be tuned",
    "qwen3_omni_moe": "it also contains a speech model, which would be lost",
    "idefics": "its images reach the text through cross-attention layers, which rows without "
    "images of the same batch cannot skip",
    "instructblip": QFORMER,
    "instructblipvideo": QFORMER,
    "fuyu": "its processor puts all images before the text, not where the text has them",
    "chameleon": CODEBOOK,
    "emu3": CODEBOOK,
    "diffusion_gemma": "it generates text by diffusion, so a response has no log-probs of one "
    "token after another",
    "got_ocr2": "its processor accepts neither a list of images per row nor a row without an image",
    "shieldgemma2": "it classifies images instead of generating text",
    "pi0": "it predicts the actions of a robot instead of text",
    "evolla": "it describes proteins instead of images",
}
"""Why some model types are not served that a look at their configuration does not show."""


def why_unserved(config: Any) -> str | None:
    """Return why a vision-language model is not served; `None` if it is."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN,
    )

    if config.model_type in TYPES:
        return None
    if config.model_type in REASONS:
        return REASONS[config.model_type]
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder model, and only decoder models are supported"
    if config.model_type not in KNOWN:
        if getattr(config, "auto_map", None):
            return "its code is part of the checkpoint, and what it does with images is not known"
        return "transformers does not offer it as an image-text-to-text model"
    if getattr(config.get_text_config(), "cross_attention_layers", None):
        return (
            "its images reach the text through cross-attention layers, which rows without images "
            "of the same batch cannot skip"
        )
    if feature_token_id(config) is None:
        return "its configuration has no image token whose place image features take"
    return None
