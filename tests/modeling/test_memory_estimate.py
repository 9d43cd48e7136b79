"""The estimate of memory: a case by hand, measured activations, and weights of real sizes."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from unidpo_mm.model_types import Decoder, ModelSize
from unidpo_mm.modeling.activation_memory import measure_layers
from unidpo_mm.modeling.memory_estimate import estimate
from unidpo_mm.plugins import load_family

SMALL = ModelSize("small", Decoder.dense((4, 2, 8), (2, 1, 2), 10), others=100)
"""288 weights in linear layers, 80 in embedding and head, 2048 in a LoRA adapter of rank 16."""


def test_memory_equals_a_calculation_by_hand() -> None:
    lora = estimate(SMALL, "lora", tokens=10)
    assert (lora.weights, lora.gradients, lora.optimizer) == (936 + 12288, 8192, 16384)
    assert lora.activations == 10 * (16 + 80 + 24 + 8 + 64) + 40960
    qlora = estimate(SMALL, "qlora", tokens=10)
    assert qlora.weights == 360 + 148.5703125 + 12288
    assert (qlora.gradients, qlora.optimizer) == (8192, 16384)
    full = estimate(SMALL, "full", tokens=10)
    assert (full.weights, full.gradients, full.optimizer) == (200 + 2208, 1472, 2944)
    assert full.activations == 10 * (32 + 104 + 24 + 8 + 64) + 40960
    assert full.total == 200 + 2208 + 1472 + 2944 + 10 * 232 + 40960


@pytest.mark.parametrize("sizes", [(256, 512, 4), (512, 512, 8), (256, 1024, 4)])
def test_a_layer_keeps_about_as_much_as_measured(sizes: tuple[int, int, int]) -> None:
    hidden, intermediate, heads = sizes
    config = AutoConfig.for_model(
        "llama", hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=64, vocab_size=64,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.get_input_embeddings().weight.requires_grad_(True)
    tokens = 64
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    measured = measure_layers(model, lambda: model(input_ids=ids).logits, tokens)
    decoder = Decoder.dense((hidden, 2, intermediate), (heads, heads // 2, 64), 64)
    by_tokens = [estimate(ModelSize("", decoder, 0), "lora", tokens=n).activations for n in (1, 2)]
    inputs = 2 * hidden * 2  # of both layers
    layer = by_tokens[1] - by_tokens[0] - inputs
    assert measured.inputs == tokens * 2 * hidden
    assert layer == pytest.approx(measured.kept[1] / tokens, rel=0.35)


def sizes_of(model_type: str) -> dict[str, ModelSize]:
    families = [load_family(name) for name in ("llava", "qwen_vl", "image_text")]
    (family,) = [family for family in families if model_type in family.model_types]
    return {size.name: size for size in family.describe(model_type).sizes}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "name", "settings"),
    [
        # the defaults of these configurations are the sizes of these models
        ("qwen3_5", "Qwen3.5 9B", {}),
        ("qwen3_5_moe", "Qwen3.5 35B-A3B", {}),
        ("glm4v", "GLM-4.1V 9B", {}),
        ("qwen2_5_omni_thinker", "Qwen2.5-Omni 7B", {}),
        ("qwen3_vl", "Qwen3-VL 4B", {"hidden_size": 2560, "num_hidden_layers": 36,
         "intermediate_size": 9728, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 128, "tie_word_embeddings": True}),
        ("gemma3", "Gemma 3 4B", {"hidden_size": 2560, "num_hidden_layers": 34,
         "intermediate_size": 10240, "num_attention_heads": 8, "num_key_value_heads": 4,
         "head_dim": 256, "vocab_size": 262208}),
    ],
)  # fmt: skip
def test_sizes_have_the_weights_of_their_models(
    model_type: str, name: str, settings: dict[str, Any]
) -> None:
    config = AutoConfig.for_model(model_type)
    for key, value in settings.items():
        setattr(config.get_text_config(), key, value)
    config.tie_word_embeddings = settings.get("tie_word_embeddings", config.tie_word_embeddings)
    if "num_hidden_layers" in settings and hasattr(config.get_text_config(), "layer_types"):
        config.get_text_config().layer_types = ["full_attention"] * settings["num_hidden_layers"]
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config)
    decoder = sizes_of(model_type)[name].decoder
    text = model.get_decoder()
    weights = sum(parameter.numel() for parameter in text.parameters())
    head = model.get_output_embeddings().weight
    weights += 0 if decoder.tied else head.numel()
    assert decoder.weights == pytest.approx(weights, rel=0.002)
    linear = [layer for layer in text.modules() if isinstance(layer, torch.nn.Linear)]
    assert decoder.linear_weights == pytest.approx(sum(x.weight.numel() for x in linear), rel=0.002)
    pairs = sum(x.in_features + x.out_features for x in linear)
    assert decoder.lora_weights(1) == pytest.approx(pairs, rel=0.002)
