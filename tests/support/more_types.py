"""Tiny checkpoints of further model types that no table lists, and unusual variants of listed ones.

Each is either served correctly or refused with the right reason.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from model_adapters._tiny_chat import VISION, ids_of, text_config, tokenizer_with
from model_adapters._tiny_image_text import _scale_weights
from model_adapters._tiny_image_tiles import _minicpm as _minicpm_46

__all__ = ["TYPES", "VARIANTS", "build_type"]

CLASSES: Any = transformers
Built = tuple[Any, Any]

SQUARE = {"height": 32, "width": 32}
PIXELS = {"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}


def _janus(folder: Path) -> Built:
    image = "<image_placeholder>"
    marks = {"boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tokenizer_with(
        folder, (image, *marks.values()), image, bos="<s>", image_token=image, **marks
    )
    config = AutoConfig.for_model(
        "janus",
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config={
            **VISION, "image_size": 32, "patch_size": 8, "projection_dim": 32,
            "num_image_tokens": 16, "depth": 1,
        },
        vq_config={
            "embed_dim": 4, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32,
            "channel_multiplier": [1, 1], "num_res_blocks": 1, "num_patches": 4,
            "projection_dim": 32, "image_token_embed_dim": 32, "num_hidden_layers": 1,
            "hidden_size": 32,
        },
        **ids_of(tokenizer, image_token_id=image),
    )  # fmt: skip
    processor = CLASSES.JanusProcessor(
        CLASSES.JanusImageProcessor(size=SQUARE, min_size=14),
        tokenizer,
        chat_template=tokenizer.chat_template,
        num_image_tokens=16,
    )
    return config, processor


def _glm_ocr(folder: Path) -> Built:
    names = ("<|image|>", "<|begin_of_image|>", "<|end_of_image|>", "<|video|>",
             "<|begin_of_video|>", "<|end_of_video|>")  # fmt: skip
    tokenizer = tokenizer_with(
        folder, names, "<|begin_of_image|><|image|><|end_of_image|>",
        image_token="<|image|>", video_token="<|video|>",
    )  # fmt: skip
    config = AutoConfig.for_model(
        "glm_ocr",
        text_config=text_config(
            tokenizer, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]}
        ),
        vision_config={
            "depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
            "intermediate_size": 32, "image_size": 56,
        },
        **ids_of(
            tokenizer, image_token_id="<|image|>", video_token_id="<|video|>",
            image_start_token_id="<|begin_of_image|>", image_end_token_id="<|end_of_image|>",
            video_start_token_id="<|begin_of_video|>", video_end_token_id="<|end_of_video|>",
        ),
    )  # fmt: skip
    size = {"shortest_edge": 2 * 28 * 28, "longest_edge": 32 * 28 * 28}
    processor = CLASSES.Glm46VProcessor(
        CLASSES.Glm46VImageProcessor(patch_size=14, merge_size=2, size=size),
        tokenizer,
        CLASSES.Glm46VVideoProcessor(patch_size=14, merge_size=2, size=size),
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _qwen3_omni_thinker(folder: Path) -> Built:
    names = {
        "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
        "audio_token": "<|audio_pad|>", "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>", "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    }  # fmt: skip
    tokenizer = tokenizer_with(
        folder, tuple(names.values()), "<|vision_start|><|image_pad|><|vision_end|>", **names
    )
    config = CLASSES.Qwen3OmniMoeThinkerConfig(
        text_config=text_config(
            tokenizer, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2],
                             "mrope_interleaved": True},
        ),
        vision_config={
            "depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
            "intermediate_size": 32, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        audio_config={
            "num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "d_model": 32, "output_dim": 32, "n_window": 10,
            "downsample_hidden_size": 8,
        },
        **ids_of(tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>",
                 audio_token_id="<|audio_pad|>", vision_start_token_id="<|vision_start|>",
                 audio_start_token_id="<|audio_start|>"),
    )  # fmt: skip
    processor = CLASSES.Qwen3OmniMoeProcessor(
        image_processor=CLASSES.Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=PIXELS),
        video_processor=CLASSES.Qwen2VLVideoProcessor(patch_size=14, merge_size=2, size=PIXELS),
        feature_extractor=CLASSES.WhisperFeatureExtractor(feature_size=16),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _gemma4_unified(folder: Path) -> Built:
    named = {
        "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
        "video_token": "<|video|>", "audio_token": "<|audio|>", "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }  # fmt: skip
    tokenizer = tokenizer_with(folder, tuple(named.values()), "<|image|>", bos="<bos>", **named)
    config = AutoConfig.for_model(
        "gemma4_unified",
        text_config=text_config(
            tokenizer, global_head_dim=8, use_bidirectional_attention="vision", sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config={"patch_size": 8, "pooling_kernel_size": 2, "hidden_size": 32},
        audio_config=None,
        **ids_of(
            tokenizer, image_token_id="<|image|>", boi_token_id="<|image>",
            eoi_token_id="<image|>", video_token_id="<|video|>", audio_token_id="<|audio|>",
            boa_token_id="<|audio>", eoa_token_index="<audio|>",
        ),
    )  # fmt: skip
    sizes = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = CLASSES.Gemma4UnifiedProcessor(
        feature_extractor=CLASSES.Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=CLASSES.Gemma4UnifiedImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=CLASSES.Gemma4UnifiedVideoProcessor(**sizes),
        chat_template=tokenizer.chat_template,
        image_seq_length=70,
    )
    return config, processor


def _glmga(folder: Path) -> Built:
    """Build a type whose model is that of GLM-4.6V."""
    config, processor = _glm_ocr(folder)
    settings = config.to_dict()
    for part in (settings, settings["text_config"], settings["vision_config"]):
        part.pop("model_type")
    return AutoConfig.for_model("glmga", **settings), processor


def _deepseek_vl_hybrid(folder: Path) -> Built:
    """Build a type with two towers, one of them for large images."""
    image = "<image_placeholder>"
    tokenizer = tokenizer_with(folder, (image,), image, image_token=image)
    config = AutoConfig.for_model(
        "deepseek_vl_hybrid",
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config={
            "model_type": "siglip_vision_model", **VISION, "image_size": 32, "patch_size": 8,
        },
        high_res_vision_config={
            "model_type": "sam_vision_model", "hidden_size": 32, "output_channels": 8,
            "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 256, "patch_size": 16,
            "mlp_dim": 32, "global_attn_indexes": [1], "window_size": 4,
        },
        **ids_of(tokenizer, image_token_id=image),
    )  # fmt: skip
    large = {"height": 256, "width": 256}
    processor = CLASSES.DeepseekVLHybridProcessor(
        CLASSES.DeepseekVLHybridImageProcessor(size=SQUARE, high_res_size=large, min_size=14),
        tokenizer,
        chat_template=tokenizer.chat_template,
        num_image_tokens=16,
    )
    return config, processor


def _minicpm(folder: Path, model_type: str, prefix: str) -> Built:
    """Build a type like MiniCPM-V 4.6, with classes of another prefix where it has its own."""
    config, processor = _minicpm_46(folder, model_type)
    parts = {
        name: _class(f"{prefix}{kind}", f"MiniCPMV4_6{kind}")(scale_resolution=64, patch_size=8)
        for name, kind in (
            ("image_processor", "ImageProcessor"), ("video_processor", "VideoProcessor")
        )
    }  # fmt: skip
    parts["image_processor"].max_slice_nums = 4
    processor = getattr(CLASSES, f"{prefix}Processor")(
        **parts, tokenizer=processor.tokenizer, chat_template=processor.chat_template
    )
    return config, processor


def _class(name: str, other: str) -> Any:
    return getattr(CLASSES, name, None) or getattr(CLASSES, other)


def _granite4_vision(folder: Path) -> Built:
    """Return a model whose features enter several layers of its language model."""
    tokenizer = tokenizer_with(folder, ("<image>",), "<image>", image_token="<image>")
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = AutoConfig.for_model(
        "granite4_vision",
        text_config=text_config(
            tokenizer, num_hidden_layers=4, logits_scaling=3.0, layer_types=["full_attention"] * 4
        ),
        vision_config={
            "model_type": "siglip_vision_model", **VISION, "hidden_size": 64, "image_size": 32,
            "patch_size": 8,
        },
        image_grid_pinpoints=pinpoints, downsample_rate="1/2", use_spatial_sampling=True,
        deepstack_layer_map=[[-1, 0], [-2, 1]], spatial_target_layers=[2, 3, 2, 3],
        vision_feature_select_strategy="full",
        qformer_config={"intermediate_size": 64, "num_hidden_layers": 1},
        **ids_of(tokenizer, image_token_index="<image>"),
    )  # fmt: skip
    processor = CLASSES.Granite4VisionProcessor(
        CLASSES.LlavaNextImageProcessor(
            size=SQUARE, crop_size=SQUARE, image_grid_pinpoints=pinpoints
        ),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
        chat_template=tokenizer.chat_template,
    )
    return config, processor


def _qianfan_ocr(folder: Path) -> Built:
    """Return a model with stochastic depth, whose processor replaces the token of the text."""
    names = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
    }  # fmt: skip
    tokenizer = tokenizer_with(folder, ("<image>", *names.values()), "<image>", **names)
    config = AutoConfig.for_model(
        "qianfan_ocr",
        text_config=text_config(tokenizer, model_type="qwen3"),
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        image_seq_length=4,
        **ids_of(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )
    processor = CLASSES.QianfanOCRProcessor(
        CLASSES.GotOcr2ImageProcessor(size=SQUARE, max_patches=4),
        tokenizer,
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    return config, processor


TYPES: dict[str, Callable[[Path], Built]] = {
    "granite4_vision": _granite4_vision,
    "qianfan_ocr": _qianfan_ocr,
    "janus": _janus,
    "glm_ocr": _glm_ocr,
    "qwen3_omni_moe_thinker": _qwen3_omni_thinker,
    "gemma4_unified": _gemma4_unified,
    "glmga": _glmga,
    "deepseek_vl_hybrid": _deepseek_vl_hybrid,
    "minicpmv4_7": functools.partial(_minicpm, model_type="minicpmv4_7", prefix="MiniCPMV4_7"),
    "minicpm_ocr": functools.partial(_minicpm, model_type="minicpm_ocr", prefix="MiniCPMOcr"),
}
"""Model type -> function of a directory that returns configuration and processor."""


def build_type(folder: Path, model_type: str) -> Path:
    """Write a tiny checkpoint of a type; return its directory."""
    config, processor = TYPES[model_type](folder)
    return save(folder, config, processor)


def save(folder: Path, config: Any, processor: Any) -> Path:
    """Write a checkpoint with scaled random weights."""
    torch.manual_seed(0)
    model = CLASSES.AutoModelForImageTextToText.from_config(config)
    _scale_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# ---- variants of listed types ----


def _processor(folder: Path) -> Any:
    return CLASSES.AutoProcessor.from_pretrained(folder)


def _with_image_settings(**settings: Any) -> Callable[[Path], None]:
    """Return a change of the settings of the image processor."""

    def change(folder: Path) -> None:
        processor = _processor(folder)
        for name, value in settings.items():
            setattr(processor.image_processor, name, value)
        processor.save_pretrained(folder)

    return change


def _without_template(folder: Path) -> None:
    """Remove the chat template."""
    processor = _processor(folder)
    processor.chat_template = processor.tokenizer.chat_template = None
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    processor.save_pretrained(folder)


def _tied(folder: Path) -> None:
    """Use the embedding as the output head."""
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = True
    config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    config = AutoConfig.from_pretrained(folder)
    save(folder, config, _processor(folder))


def _other_placeholder(folder: Path) -> None:
    """Name the image token with blanks and brackets, as no other type does."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                 "processor_config.json"):  # fmt: skip
        path = folder / name
        if path.is_file():
            path.write_text(path.read_text().replace("<image>", "[[ an image ]]"))


VARIANTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "llava without a chat template": ("llava", _without_template),
    "qwen2_vl without a chat template": ("qwen2_vl", _without_template),
    "internvl without a chat template": ("internvl", _without_template),
    "internvl with one tile": ("internvl", _with_image_settings(max_patches=1)),
    "internvl with at least two tiles": (
        "internvl", _with_image_settings(min_patches=2, max_patches=3)
    ),
    "internvl without tiles": ("internvl", _with_image_settings(crop_to_patches=False)),
    "idefics2 with splitting": ("idefics2", _with_image_settings(do_image_splitting=True)),
    "idefics3 without splitting": ("idefics3", _with_image_settings(do_image_splitting=False)),
    "gemma3 with pan and scan": (
        "gemma3",
        _with_image_settings(do_pan_and_scan=True, pan_and_scan_min_crop_size=8,
                             pan_and_scan_max_num_crops=4, pan_and_scan_min_ratio_to_activate=1.2),
    ),
    "qwen2_vl with tied embeddings": ("qwen2_vl", _tied),
    "llava with tied embeddings": ("llava", _tied),
    "llava with another placeholder": ("llava", _other_placeholder),
}  # fmt: skip
"""Name -> a listed type, and a change of its tiny checkpoint."""
