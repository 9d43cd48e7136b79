"""Tiny configurations and processors of model types that encode every image as one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig

from ._tiny_chat import VISION, ids_of, text_config, tokenizer_with

__all__ = ["SIZED"]

CLASSES: Any = transformers
"""Its classes, of which type checkers do not see all settings."""

SIDE = 32
SQUARE = {"height": SIDE, "width": SIDE}
MIXED_LAYERS: dict[str, Any] = {
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
Built = tuple[Any, Any]
"""Configuration and processor."""


def _gemma3(folder: Path, model_type: str) -> Built:
    tokenizer = tokenizer_with(
        folder,
        ("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        "<start_of_image>",
        bos="<bos>",
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, query_pre_attn_scalar=8, **MIXED_LAYERS),
        vision_config={**VISION, "image_size": SIDE, "patch_size": 8},
        mm_tokens_per_image=4,
        **ids_of(
            tokenizer,
            image_token_index="<image_soft_token>",
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
        ),
    )
    processor = CLASSES.Gemma3Processor(
        CLASSES.Gemma3ImageProcessor(size=SQUARE),
        tokenizer,
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _gemma4(folder: Path, model_type: str) -> Built:
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "video_token": "<|video|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    tokenizer = tokenizer_with(folder, tuple(named.values()), "<|image|>", bos="<bos>", **named)
    text = {
        "vocab_size_per_layer_input": len(tokenizer),
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
        "use_bidirectional_attention": "vision",
    }
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, **MIXED_LAYERS, **text),
        vision_config={
            **VISION,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
        audio_config=None,
        **ids_of(
            tokenizer,
            image_token_id="<|image|>",
            boi_token_id="<|image>",
            eoi_token_id="<image|>",
            video_token_id="<|video|>",
            audio_token_id="<|audio|>",
            boa_token_id="<|audio>",
            eoa_token_index="<audio|>",
        ),
    )
    sizes = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = CLASSES.Gemma4Processor(
        feature_extractor=CLASSES.Gemma4AudioFeatureExtractor(),
        image_processor=CLASSES.Gemma4ImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=CLASSES.Gemma4VideoProcessor(**sizes),
        chat_template=tokenizer.chat_template,
        image_seq_length=70,
    )
    return config, processor


def _paligemma(folder: Path, model_type: str) -> Built:
    tokenizer = tokenizer_with(
        folder, ("<image>",), None, bos="<bos>", eos="<pad>", image_token="<image>"
    )
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="gemma"),
        vision_config={
            "model_type": "siglip_vision_model",
            **VISION,
            "image_size": SIDE,
            "patch_size": 8,
            "projection_dim": 32,
        },
        projection_dim=32,
        hidden_size=32,
        **ids_of(tokenizer, image_token_index="<image>"),
    )
    image_processor = CLASSES.SiglipImageProcessor(size=SQUARE)
    image_processor.image_seq_length = (SIDE // 8) ** 2
    return config, CLASSES.PaliGemmaProcessor(image_processor, tokenizer)


def _mistral3(folder: Path, model_type: str) -> Built:
    marks = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    tokenizer = tokenizer_with(folder, marks, "[IMG]", bos="<s>")
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="mistral", sliding_window=None),
        vision_config={
            "model_type": "pixtral",
            **VISION,
            "head_dim": 8,
            "image_size": 56,
            "patch_size": 7,
        },
        spatial_merge_size=2,
        **ids_of(tokenizer, image_token_index="[IMG]"),
    )
    processor = CLASSES.PixtralProcessor(
        CLASSES.PixtralImageProcessor(
            size={"longest_edge": 56}, patch_size={"height": 7, "width": 7}
        ),
        tokenizer,
        patch_size=7,
        spatial_merge_size=2,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _kimi_k25(folder: Path, model_type: str) -> Built:
    image, video = "<|media_pad|>", "<|kimi_k25_video_placeholder|>"
    tokenizer = tokenizer_with(
        folder,
        (image, "<|media_begin|>", "<|media_end|>", "<|media_content|>", video),
        f"<|media_begin|>image<|media_content|>{image}<|media_end|>",
        bos="[BOS]",
        image_token=image,
        video_token=video,
    )
    text = text_config(
        tokenizer,
        model_type="deepseek_v3",
        num_key_value_heads=4,
        num_experts_per_tok=2,
        n_routed_experts=4,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        n_group=1,
        topk_group=1,
    )
    del text["head_dim"]
    config = AutoConfig.for_model(
        model_type,
        text_config=text,
        vision_config={
            **VISION,
            "patch_size": 14,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
        },
        projection_hidden_size=32,
        **ids_of(tokenizer, image_token_id=image, video_token_id=video),
    )
    processor = CLASSES.Kimi_K25Processor(
        CLASSES.Kimi_K25ImageProcessor(patch_size=14, merge_size=2),
        tokenizer,
        CLASSES.Kimi_K25VideoProcessor(),
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _video_llama_3(folder: Path, model_type: str) -> Built:
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    special = ("<|vision_start|>", "<|vision_end|>", *named.values())
    tokenizer = tokenizer_with(folder, special, "<|image_pad|>", **named)
    config = AutoConfig.for_model(
        model_type,
        text_config=text_config(tokenizer, model_type="qwen2"),
        vision_config={**VISION, "patch_size": 14},
        **ids_of(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    size = {"shortest_edge": 14**2, "longest_edge": 16 * 28**2}
    processor = CLASSES.VideoLlama3Processor(
        CLASSES.VideoLlama3ImageProcessor(size=size),
        tokenizer,
        CLASSES.VideoLlama3VideoProcessor(),
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _omni_thinker(folder: Path, model_type: str) -> Built:
    named = {
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "audio_token": "<|AUDIO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    }
    image = "<|vision_bos|><|IMAGE|><|vision_eos|>"
    tokenizer = tokenizer_with(folder, tuple(named.values()), image, **named)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    text = text_config(tokenizer, rope_parameters=rope)
    del text["head_dim"]
    config = AutoConfig.for_model(
        model_type,
        text_config=text,
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 32,
            "intermediate_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        audio_config={
            "num_mel_bins": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 32,
            "output_dim": 32,
            "n_window": 10,
        },
        **ids_of(
            tokenizer,
            image_token_id="<|IMAGE|>",
            video_token_id="<|VIDEO|>",
            audio_token_id="<|AUDIO|>",
            vision_start_token_id="<|vision_bos|>",
            vision_end_token_id="<|vision_eos|>",
        ),
    )
    shape = {"patch_size": 14, "merge_size": 2}
    pixels = {"shortest_edge": 28**2, "longest_edge": 8 * 28**2}
    processor = CLASSES.Qwen2_5OmniProcessor(
        image_processor=CLASSES.Qwen2VLImageProcessor(**shape, size=pixels),
        video_processor=CLASSES.Qwen2VLVideoProcessor(**shape),
        feature_extractor=CLASSES.WhisperFeatureExtractor(feature_size=16),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


SIZED: Mapping[str, Callable[[Path, str], Built]] = {
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "paligemma": _paligemma,
    "mistral3": _mistral3,
    "kimi_k25": _kimi_k25,
    "video_llama_3": _video_llama_3,
    "qwen2_5_omni_thinker": _omni_thinker,
}
"""Model type -> function of a directory and the model type."""
