"""Tiny configurations and processors of model types that cut images into tiles."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig

from ._tiny_chat import VISION, ids_of, text_config, tokenizer_with

__all__ = ["TILED"]

CLASSES: Any = transformers
"""Its classes, of which type checkers do not see all settings."""

SIDE = 32
SQUARE = {"height": SIDE, "width": SIDE}
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    **VISION,
    "image_size": SIDE,
    "patch_size": 8,
}
MIXED_LAYERS: dict[str, Any] = {
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
Built = tuple[Any, Any]
"""Configuration and processor."""


def _internvl(folder: Path, model_type: str) -> Built:
    tokenizer = tokenizer_with(
        folder,
        ("<IMG_CONTEXT>", "<img>", "</img>", "<video>"),
        "<IMG_CONTEXT>\\n",
        video="<video>\\n",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="qwen2"),
        vision_config={**VISION, "image_size": [SIDE, SIDE], "patch_size": [8, 8]},
        image_seq_length=4,
        **ids_of(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )
    processor = CLASSES.InternVLProcessor(
        CLASSES.GotOcr2ImageProcessor(size=SQUARE, max_patches=4),
        tokenizer,
        CLASSES.InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _idefics2(folder: Path, model_type: str) -> Built:
    tokenizer = tokenizer_with(
        folder, ("<image>", "<fake_token_around_image>", "<end_of_utterance>"), "<image>"
    )
    processor = CLASSES.Idefics2Processor(
        CLASSES.Idefics2ImageProcessor(
            size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False
        ),
        tokenizer,
        image_seq_len=4,
        chat_template=tokenizer.chat_template,
    )
    perceiver = {
        "hidden_size": 32,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 4,
        "resampler_head_dim": 8,
        "num_key_value_heads": 2,
    }
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="mistral", sliding_window=None),
        vision_config={**VISION, "image_size": 56, "patch_size": 14},
        perceiver_config=perceiver,
        **ids_of(tokenizer, image_token_id="<image>"),
    )
    return config, processor


def _idefics3(folder: Path, model_type: str) -> Built:
    places = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    marks = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<video>")
    is_smolvlm = model_type == "smolvlm"
    named = {"image_token": "<image>", "video_token": "<video>"} if is_smolvlm else {}
    video = "<video>" if is_smolvlm else ""
    tokenizer = tokenizer_with(
        folder, ("<image>", *marks, *places), "<image>", video=video, **named
    )
    sizes = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    common = {"image_seq_len": 4, "chat_template": tokenizer.chat_template}
    if is_smolvlm:
        processor: Any = CLASSES.SmolVLMProcessor(
            CLASSES.SmolVLMImageProcessor(**sizes),
            tokenizer,
            CLASSES.SmolVLMVideoProcessor(**sizes, video_sampling={"fps": 1, "max_frames": 4}),
            **common,
        )
    else:
        image_processor = CLASSES.Idefics3ImageProcessor(**sizes)
        processor = CLASSES.Idefics3Processor(image_processor, tokenizer, **common)
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config={**VISION, "image_size": SIDE, "patch_size": 8},
        scale_factor=2,
        **ids_of(tokenizer, image_token_id="<image>"),
    )
    return config, processor


def _lfm2_vl(folder: Path, model_type: str) -> Built:
    places = tuple(
        f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)
    )
    marks = ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    tokenizer = tokenizer_with(
        folder,
        ("<image>", *marks, *places),
        "<image>",
        bos="<|startoftext|>",
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail="<|img_thumbnail|>",
    )
    layers = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(
            tokenizer, model_type="lfm2", block_auto_adjust_ff_dim=False, **layers
        ),
        vision_config={
            "model_type": "siglip2_vision_model",
            **VISION,
            "num_patches": 16,
            "patch_size": 8,
        },
        projector_hidden_size=32,
        **ids_of(tokenizer, image_token_id="<image>"),
    )
    image_processor = CLASSES.Lfm2VlImageProcessor(
        encoder_patch_size=8,
        tile_size=SIDE,
        min_image_tokens=2,
        max_image_tokens=8,
        max_tiles=4,
        max_num_patches=64,
        size=SQUARE,
    )
    processor = CLASSES.Lfm2VlProcessor(
        image_processor, tokenizer, chat_template=tokenizer.chat_template
    )
    return config, processor


def _aya_vision(folder: Path, model_type: str) -> Built:
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    tiles = ("TILE", "TILE_GLOBAL", *(f"TILE_{number}" for number in range(1, 13)))
    tokenizer = tokenizer_with(folder, ("<image>", *marks, *tiles), "<image>", bos="<BOS>")
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="cohere2", **MIXED_LAYERS),
        vision_config=SIGLIP,
        vision_feature_select_strategy="full",
        **ids_of(tokenizer, image_token_index="<|IMG_PATCH|>"),
    )
    image_processor = CLASSES.GotOcr2ImageProcessor(
        size=SQUARE, max_patches=4, crop_to_patches=True
    )
    processor = CLASSES.AyaVisionProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        img_size=SIDE,
        downsample_factor=2,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _cohere2_vision(folder: Path, model_type: str) -> Built:
    marks = ("<|IMG_PATCH|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>")
    tokenizer = tokenizer_with(
        folder,
        marks,
        "<|IMG_PATCH|>",
        bos="<BOS>",
        image_token="<|IMG_PATCH|>",
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="cohere2", **MIXED_LAYERS),
        vision_config=SIGLIP,
        alignment_intermediate_size=64,
        downsample_factor=2,
        **ids_of(tokenizer, image_token_id="<|IMG_PATCH|>"),
    )
    processor = CLASSES.Cohere2VisionProcessor(
        CLASSES.Cohere2VisionImageProcessor(size=SQUARE, max_patches=4, patch_size=2),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _ovis2(folder: Path, model_type: str) -> Built:
    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tokenizer = tokenizer_with(folder, ("<image>", "<IMG_ATOM>", *marks), "<image>")
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="qwen2"),
        vision_config={
            **VISION,
            "image_size": SIDE,
            "patch_size": 8,
            "vocab_size": 64,
            "hidden_stride": 2,
        },
        visual_indicator_token_ids=[tokenizer.convert_tokens_to_ids(mark) for mark in marks],
        vocab_size=len(tokenizer),
        hidden_size=32,
        **ids_of(tokenizer, image_token_id="<IMG_ATOM>"),
    )
    processor = CLASSES.Ovis2Processor(
        CLASSES.Ovis2ImageProcessor(size=SQUARE, max_patches=4, crop_to_patches=True),
        tokenizer,
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _minicpm(folder: Path, model_type: str) -> Built:
    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    special = ("<unk>", *named.values())
    tokenizer = tokenizer_with(folder, special, "<|image_pad|>", **named)
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 2],
        "mrope_interleaved": True,
        "partial_rotary_factor": 1.0,
    }
    linear = {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(
            tokenizer, model_type="qwen3_5_text", rope_parameters=rope, **linear
        ),
        vision_config={**VISION, "image_size": 64, "patch_size": 8, "insert_layer_id": 0},
        insert_layer_id=0,
        image_size=64,
        **ids_of(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    sizes = {"scale_resolution": 64, "patch_size": 8}
    processor = CLASSES.MiniCPMV4_6Processor(
        CLASSES.MiniCPMV4_6ImageProcessor(**sizes, max_slice_nums=4),
        CLASSES.MiniCPMV4_6VideoProcessor(**sizes),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _llava_next_video(folder: Path, model_type: str) -> Built:
    tokenizer = tokenizer_with(
        folder,
        ("<image>", "<video>"),
        "<image>\\n",
        bos="<s>",
        image_token="<image>",
        video_token="<video>",
    )
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config={
            "model_type": "clip_vision_model",
            **VISION,
            "image_size": 28,
            "patch_size": 7,
        },
        image_grid_pinpoints=pinpoints,
        spatial_pool_stride=2,
        **ids_of(tokenizer, image_token_id="<image>", video_token_id="<video>"),
    )
    shape = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    processor = CLASSES.LlavaNextVideoProcessor(
        CLASSES.LlavaNextVideoVideoProcessor(**shape),
        CLASSES.LlavaNextImageProcessor(**shape, image_grid_pinpoints=pinpoints),
        tokenizer,
        chat_template=tokenizer.chat_template,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return config, processor


TILED: Mapping[str, Callable[[Path, str], Built]] = {
    "internvl": _internvl,
    "idefics2": _idefics2,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "lfm2_vl": _lfm2_vl,
    "aya_vision": _aya_vision,
    "cohere2_vision": _cohere2_vision,
    "ovis2": _ovis2,
    "minicpmv4_6": _minicpm,
    "llava_next_video": _llava_next_video,
}
"""Model type -> function of a directory and the model type."""
