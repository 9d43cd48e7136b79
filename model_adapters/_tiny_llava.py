"""Build tiny random LLaVA-style checkpoints with their processors, offline."""

from pathlib import Path
from typing import Any

import torch

from ._tiny import CHATML, save_tokenizer, tiny_text

__all__ = ["build"]

PATCH = 14
IMAGE_SIZE = 28
TINY_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH,
}
PINPOINTS = [[IMAGE_SIZE, 2 * IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE], [2 * IMAGE_SIZE] * 2]
"""Resolutions into which any-resolution models may split an image."""


def build(folder: Path, *, model_type: str, seed: int, text_type: str = "llama") -> Path:
    """Write a tiny checkpoint of one of the family's model types; return its directory."""
    from transformers import AutoModelForImageTextToText

    tokenizer = save_tokenizer(folder)
    config = _config(model_type, text_type, tokenizer)
    torch.manual_seed(seed)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    _processor(model_type, tokenizer).save_pretrained(folder)
    return folder


def _config(model_type: str, text_type: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    tower = "siglip_vision_model" if model_type == "llava_onevision" else "clip_vision_model"
    settings: dict[str, Any] = {
        "vision_config": AutoConfig.for_model(tower, **TINY_VISION),
        "text_config": AutoConfig.for_model(text_type, **tiny_text(tokenizer)),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
    }
    if model_type != "llava":
        settings["image_grid_pinpoints"] = PINPOINTS
    if model_type == "llava_onevision":
        settings["video_token_id"] = tokenizer.convert_tokens_to_ids("<video>")
        settings["vision_aspect_ratio"] = "anyres_max_9"
    return AutoConfig.for_model(model_type, **settings)


def _processor(model_type: str, tokenizer: Any) -> Any:
    import transformers

    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    if model_type == "llava_onevision":
        return transformers.LlavaOnevisionProcessor(
            image_processor=transformers.LlavaOnevisionImageProcessor(
                size=square, image_grid_pinpoints=PINPOINTS
            ),
            tokenizer=tokenizer,
            video_processor=transformers.LlavaOnevisionVideoProcessor(size=square),
            num_image_tokens=(IMAGE_SIZE // PATCH) ** 2,
            vision_feature_select_strategy="full",
            chat_template=CHATML,
        )
    shape: dict[str, Any] = {"size": {"shortest_edge": IMAGE_SIZE}, "crop_size": square}
    common = {
        "tokenizer": tokenizer,
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": CHATML,
    }
    if model_type == "llava_next":
        image_processor = transformers.LlavaNextImageProcessor(
            **shape, image_grid_pinpoints=PINPOINTS
        )
        return transformers.LlavaNextProcessor(image_processor=image_processor, **common)
    return transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(**shape), **common
    )
