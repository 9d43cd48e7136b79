"""Models with random weights in the sizes of real ones, and rows of the right lengths."""

import dataclasses
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from arithmetic import Decoder, Shape, Tower
from PIL import Image

from unidpo_mm.plugins import load_family

__all__ = ["LORA", "build", "pairs_of", "rows_of", "tiny"]

FAMILIES = {"llava": "llava", "qwen2_5_vl": "qwen_vl", "qwen2": "text"}
LORA: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "target_modules": r"model\.(language_model\.)?layers\..*\.(q|k|v|o|gate|up|down)_proj",
    "task_type": "CAUSAL_LM",
}
"""The linear layers of the language model, as in the arithmetic."""
CLASSES = {"text": "AutoModelForCausalLM"}
TEMPLATE_TOKENS = 12
"""About the number of tokens that the chat template adds to a prompt."""


def tiny(shape: Shape) -> Shape:
    """Return a shape for a run on a CPU, with everything small."""
    decoder = Decoder(2, 64, 128, 4, 2, 512)
    tower = shape.tower and Tower(2, 32, 64, shape.tower.gated, 16, 16, 1e3)
    image = shape.image and (56, 56)
    responses = tuple(6 + n for n in range(len(shape.responses)))
    small = dataclasses.replace(shape, decoder=decoder, tower=tower, image=image)
    return dataclasses.replace(small, prompt=40, responses=responses)


def build(shape: Shape, device: str, dtype: torch.dtype, *, layers: int | None = None) -> Any:
    """Return a model and its processor or tokenizer.

    Args:
        shape: The case.
        device: The device on which the weights are drawn.
        dtype: Number format of the weights.
        layers: Number of decoder layers, instead of all of them.
    """
    import transformers

    family = FAMILIES[shape.model]
    with tempfile.TemporaryDirectory() as name:
        folder = load_family(family).tiny(Path(name), model_type=shape.model)
        config = transformers.AutoConfig.from_pretrained(folder)
        loader = transformers.AutoTokenizer if family == "text" else transformers.AutoProcessor
        processor = loader.from_pretrained(folder)
    _resize_text(config.get_text_config(), shape.decoder, layers)
    if shape.tower is not None:
        _resize_tower(config.vision_config, shape)
        _resize_images(processor, shape)
    torch.manual_seed(0)
    auto = getattr(transformers, CLASSES.get(family, "AutoModelForImageTextToText"))
    with torch.device(device):
        model = auto.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model, processor


def _resize_text(config: Any, decoder: Decoder, layers: int | None) -> None:
    config.num_hidden_layers = layers or decoder.layers
    config.hidden_size, config.intermediate_size = decoder.hidden, decoder.intermediate
    config.num_attention_heads, config.num_key_value_heads = decoder.heads, decoder.key_heads
    config.vocab_size, config.max_position_embeddings = decoder.vocabulary, 16384
    head = decoder.hidden // decoder.heads
    if getattr(config, "head_dim", None):
        config.head_dim = head
    if getattr(config, "layer_types", None):
        config.layer_types = ["full_attention"] * config.num_hidden_layers
    rope = getattr(config, "rope_parameters", None)
    if rope and "mrope_section" in rope:
        quarter = head // 8
        rope["mrope_section"] = [quarter, (head // 2 - quarter) // 2, (head // 2 - quarter) // 2]
        rope["mrope_section"][0] = head // 2 - sum(rope["mrope_section"][1:])


def _resize_tower(config: Any, shape: Shape) -> None:
    tower = shape.tower
    assert tower is not None
    config.hidden_size, config.intermediate_size = tower.hidden, tower.intermediate
    heads = max(tower.hidden // 80, 4) if shape.model == "qwen2_5_vl" else tower.hidden // 64 or 4
    if shape.model == "qwen2_5_vl":
        config.depth, config.num_heads = tower.layers, heads
        config.out_hidden_size = shape.decoder.hidden
        config.window_size = 112
        config.fullatt_block_indexes = [n for n in range(tower.layers) if n % 8 == 7] or [1]
    else:
        config.num_hidden_layers, config.num_attention_heads = tower.layers, heads
        assert shape.image is not None
        config.image_size = shape.image[0]


def _resize_images(processor: Any, shape: Shape) -> None:
    import transformers

    assert shape.image is not None
    side = shape.image[0]
    if shape.model == "llava":
        processor.image_processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    else:
        limits = {"shortest_edge": 28**2, "longest_edge": side**2}
        processor.image_processor = transformers.Qwen2VLImageProcessor(size=limits)


def rows_of(shape: Shape, groups: int) -> list[dict[str, Any]]:
    """Return groups of scored responses; a letter is one token of the tiny tokenizer."""
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(max(length, 1)))

    rows = []
    for _ in range(groups):
        image_tokens = 0
        row: dict[str, Any] = {}
        if shape.image is not None:
            patch = 14 if shape.model == "llava" else 28
            image_tokens = (shape.image[0] // patch) ** 2
            pixels = bytes(draw.randrange(256) for _ in range(3 * 64 * 64))
            row["images"] = [Image.frombytes("RGB", (64, 64), pixels).resize(shape.image)]
        row["prompt"] = [
            {"role": "user", "content": text(shape.prompt - image_tokens - TEMPLATE_TOKENS)}
        ]
        row["responses"] = [
            {"text": text(length - 1), "score": float(len(shape.responses) - number)}
            for number, length in enumerate(shape.responses)
        ]
        row["pairs"] = [[0, number] for number in range(1, len(shape.responses))]
        rows.append(row)
    return rows


def pairs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the same pairs with one row each, as TRL reads them."""
    pairs = []
    for row in rows:
        shared = {name: row[name] for name in ("prompt", "images") if name in row}
        for better, worse in row["pairs"]:
            texts = (row["responses"][number]["text"] for number in (better, worse))
            sides = [[{"role": "assistant", "content": text}] for text in texts]
            pairs.append({**shared, "chosen": sides[0], "rejected": sides[1]})
    return pairs
