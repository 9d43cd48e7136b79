"""Tiny checkpoints of model types without an entry in the table of `image_text`."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from model_adapters._tiny_chat import VISION, ids_of, text_config, tokenizer_with
from model_adapters._tiny_image_text import _scale_weights

__all__ = ["BUILDERS", "build"]

SIGLIP = {"model_type": "siglip_vision_model", **VISION, "image_size": 32, "patch_size": 8}
CLIP = {"model_type": "clip_vision_model", **VISION, "image_size": 28, "patch_size": 14}
CROPPED = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}


def _vipllava(folder: Path) -> tuple[Any, Any]:
    tokenizer = tokenizer_with(folder, ("<image>",), "<image>\\n", bos="<s>", image_token="<image>")
    config = AutoConfig.for_model(
        "vipllava",
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config=CLIP,
        vision_feature_layers=[-1, -2],
        **ids_of(tokenizer, image_token_index="<image>"),
    )
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(**CROPPED),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _deepseek_vl(folder: Path) -> tuple[Any, Any]:
    image = "<image_placeholder>"
    tokenizer = tokenizer_with(folder, (image,), image, image_token=image)
    config = AutoConfig.for_model(
        "deepseek_vl",
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config=SIGLIP,
        **ids_of(tokenizer, image_token_id=image),
    )
    processor = transformers.DeepseekVLProcessor(
        transformers.DeepseekVLImageProcessor(size={"height": 32, "width": 32}, min_size=14),
        tokenizer,
        chat_template=tokenizer.chat_template,
        num_image_tokens=16,
    )
    return config, processor


def _aria(folder: Path) -> tuple[Any, Any]:
    tokenizer = tokenizer_with(folder, ("<|img|>",), "<|img|>", image_token="<|img|>")
    config = AutoConfig.for_model(
        "aria",
        text_config=text_config(tokenizer, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
        vision_config={
            "model_type": "idefics3_vision",
            **VISION,
            "image_size": 980,
            "patch_size": 70,
        },
        projector_patch_to_query_dict={49: 4, 196: 8},
        **ids_of(tokenizer, image_token_index="<|img|>"),
    )
    processor = transformers.AriaProcessor(
        image_processor=transformers.AriaImageProcessor(max_image_size=490, min_image_size=336),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
        size_conversion={490: 4, 980: 8},
    )
    return config, processor


def _video_llava(folder: Path) -> tuple[Any, Any]:
    """Its processor returns images under a name that the model does not take."""
    named = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = tokenizer_with(folder, ("<image>", "<video>"), "<image>\\n", bos="<s>", **named)
    config = AutoConfig.for_model(
        "video_llava",
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config=CLIP,
        image_seq_length=4,
        video_seq_length=32,
        **ids_of(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    processor = transformers.VideoLlavaProcessor(
        image_processor=transformers.VideoLlavaImageProcessor(**CROPPED),
        video_processor=transformers.VideoLlavaVideoProcessor(**CROPPED),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


BUILDERS = {
    "vipllava": _vipllava,
    "deepseek_vl": _deepseek_vl,
    "aria": _aria,
    "video_llava": _video_llava,
}
"""Model type -> function of a directory that returns configuration and processor."""


def build(folder: Path, model_type: str) -> Path:
    """Write a tiny checkpoint; return its directory."""
    config, processor = BUILDERS[model_type](folder)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config)
    _scale_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
