"""Assemble a model with the architecture of Qwen2-VL and the weights of SmolLM2.

With biases of zero, Qwen2's decoder computes the same function as SmolLM2, and for text without
images M-RoPE equals plain RoPE, so the logits of text equal those of SmolLM2. The vision tower is
small and random, because no package on PyPI contains suitable weights. A run therefore shows that
this family trains, not that it sees.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from .assets import Assets
from .vlm import CHAT_TEMPLATE, IMAGE_HEIGHT, build_once, file_hashes, load_language_model

__all__ = ["assemble_qwen_vl"]

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = CHAT_TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
MROPE_SECTION = [8, 12, 12]
"""Number of rotations for time, height and width, of the 32 of a head with 64 dimensions."""
TOWER = {"depth": 2, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 4}


def assemble_qwen_vl(assets: Assets, *, seed: int = 0, cache: Path | None = None) -> Path:
    """Return the checkpoint directory; build it unless it exists for the same inputs.

    Args:
        assets: The unpacked parts; only the language model is used.
        seed: Seed of the random tower.
        cache: The cache directory; see `cache_directory` for the default.
    """

    def build(folder: Path) -> None:
        model, processor = build_qwen_vl(assets, seed=seed)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    inputs = [assets.language_model.parts[-3], seed, *file_hashes([Path(__file__)])]
    return build_once("qwen_shaped", inputs, build, cache=cache)


def build_qwen_vl(
    assets: Assets, *, seed: int
) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    """Copy SmolLM2's weights into a new Qwen2-VL with a random tower."""
    language_model, tokenizer = load_language_model(assets.language_model)
    processor = _processor(tokenizer)
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(_config(language_model, tokenizer)).eval()
    weights = language_model.model.state_dict()
    initial = model.model.language_model.state_dict()
    table = weights["embed_tokens.weight"]
    added = initial["embed_tokens.weight"].shape[0] - table.shape[0]
    new_rows = table.mean(0, keepdim=True).repeat(added, 1)  # tokens that are never predicted
    weights["embed_tokens.weight"] = torch.cat([table, new_rows])
    biases = {
        name: torch.zeros_like(initial[name]) for name in initial if name.endswith("_proj.bias")
    }
    model.model.language_model.load_state_dict({**weights, **biases})
    model.tie_weights()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model, processor


def _processor(tokenizer: PreTrainedTokenizerBase) -> Qwen2VLProcessor:
    tokenizer.add_special_tokens({"additional_special_tokens": list(VISION_TOKENS)})
    tokenizer.chat_template = TEMPLATE
    pixels = 2 * IMAGE_HEIGHT**2  # Qwen2-VL's limits of an image, which these names mean
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": pixels, "longest_edge": pixels}
        ),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )


def _config(language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Qwen2VLConfig:
    config: Any = language_model.config
    shared = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
    )
    rope = {**config.rope_parameters, "mrope_section": MROPE_SECTION}
    ids: Any = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    token = dict(zip(VISION_TOKENS, ids, strict=True))
    return Qwen2VLConfig(
        text_config={
            **{name: getattr(config, name) for name in shared},
            "vocab_size": max(token.values()) + 1,
            "rope_parameters": rope,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={**TOWER, "hidden_size": config.hidden_size},
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )
