"""Build tiny random GLM-4V-style checkpoints with their processors, offline."""

from pathlib import Path
from typing import Any

import torch

from ._tiny import save_tokenizer, tiny_text

__all__ = ["build"]

SPECIAL = (
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|image|>",
    "<|video|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' }}"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<|begin_of_image|><|image|><|end_of_image|>' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PATCH, MERGE, WIDTH = 14, 2, 32
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
"""Half of a head of 8 dimensions, split into time, height and width."""
EXPERTS: dict[str, Any] = {
    "head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
TOKENS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}


def build(folder: Path, *, model_type: str, seed: int) -> Path:
    """Write a tiny checkpoint of one of the model types; return its directory."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    tokenizer = save_tokenizer(
        folder,
        special=SPECIAL,
        template=CHAT_TEMPLATE,
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "video_token": "<|video|>"},
    )
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "num_heads": 4,
        "image_size": 4 * PATCH,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": WIDTH,
        "intermediate_size": WIDTH,
    }
    text = {**tiny_text(tokenizer), "rope_parameters": dict(ROPE)}
    config = AutoConfig.for_model(
        model_type,
        text_config=text | (EXPERTS if model_type == "glm4v_moe" else {}),
        vision_config=vision,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in TOKENS.items()},
    )
    torch.manual_seed(seed)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    _processor(model_type, tokenizer).save_pretrained(folder)
    return folder


def _processor(model_type: str, tokenizer: Any) -> Any:
    import transformers

    name = "Glm46V" if model_type == "glm46v" else "Glm4v"
    step = (PATCH * MERGE) ** 2
    size = {"shortest_edge": 2 * step, "longest_edge": 16 * step}  # pixels of two frames
    return getattr(transformers, f"{name}Processor")(
        getattr(transformers, f"{name}ImageProcessor")(size=size),
        tokenizer,
        getattr(transformers, f"{name}VideoProcessor")(size=size),
        chat_template=CHAT_TEMPLATE,
    )
