"""Build tiny random Qwen-VL-style checkpoints with their processors, offline."""

from pathlib import Path
from typing import Any

import torch

from ._tiny import save_tokenizer, tiny_text

__all__ = ["CHAT_TEMPLATE", "build", "build_processor"]

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part.type == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with a default system message and media between two markers, as in this family."""

PATCH = dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), 14)
PATCH |= dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), 16)
MERGE = 2
WIDTH = 32
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
"""Half of a head of 8 dimensions, split into time, height and width."""
LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
"""The layers of Qwen3.5."""
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def build(folder: Path, *, model_type: str, seed: int) -> Path:
    """Write a tiny checkpoint of one of the family's model types; return its directory."""
    from transformers import AutoModelForImageTextToText

    tokenizer = save_tokenizer(
        folder,
        special=SPECIAL,
        template=CHAT_TEMPLATE,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        # named, so that they are never split into plain text
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )
    config = _config(model_type, tokenizer)
    torch.manual_seed(seed)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    build_processor(model_type, tokenizer).save_pretrained(folder)
    return folder


def build_processor(model_type: str, tokenizer: Any) -> Any:
    """Return the processor of a model type around a tokenizer that knows the vision tokens."""
    import transformers

    patch = PATCH[model_type]
    step = patch * MERGE
    pixels = {"shortest_edge": step**2, "longest_edge": 8 * step**2}
    shape: dict[str, Any] = {"patch_size": patch, "merge_size": MERGE, "size": pixels}
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}.get(model_type, "Qwen3VL")
    video = "Qwen3VL" if name == "Qwen3VL" else "Qwen2VL"
    frames = 8 if video == "Qwen3VL" else 1  # it limits the pixels of all frames together
    video_shape = {**shape, "size": {name: frames * limit for name, limit in pixels.items()}}
    return getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**shape),
        tokenizer=tokenizer,
        video_processor=getattr(transformers, f"{video}VideoProcessor")(**video_shape),
        chat_template=CHAT_TEMPLATE,
    )


def _config(model_type: str, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))

    text = {**tiny_text(tokenizer), "rope_parameters": dict(ROPE)}
    if model_type.endswith("_moe"):
        text |= EXPERTS
    if model_type.startswith("qwen3_5"):
        text |= {**LINEAR, "shared_expert_intermediate_size": 32}
        text["rope_parameters"] |= {"mrope_interleaved": True, "partial_rotary_factor": 1.0}
    if model_type.startswith("qwen3"):
        text["head_dim"] = WIDTH // text["num_attention_heads"]
    return AutoConfig.for_model(
        model_type,
        text_config=text,
        vision_config=_vision(model_type),
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def _vision(model_type: str) -> dict[str, Any]:
    common = {
        "depth": 2,
        "num_heads": 4,
        "patch_size": PATCH[model_type],
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    }
    if model_type == "qwen2_vl":
        return {**common, "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2}
    common |= {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "out_hidden_size": WIDTH}
    if model_type == "qwen2_5_vl":
        return {**common, "window_size": 4 * PATCH[model_type], "fullatt_block_indexes": [1]}
    common["num_position_embeddings"] = 64
    if model_type.startswith("qwen3_5"):
        return common
    return {**common, "deepstack_visual_indexes": [0, 1]}
