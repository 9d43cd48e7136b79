"""Models that mix tokens past any mask use plain rows, in every precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image, mixed_rows
from torch import nn
from trainers import config, make_trainer

from unidpo_mm.errors import ModelError
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.kernels.token_state import why_stateful

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
LINEAR: dict[str, Any] = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
STATEFUL: dict[str, dict[str, Any]] = {
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "falcon_mamba": {},
    "rwkv": {"attention_hidden_size": 32},
    "recurrent_gemma": {"lru_width": 32, "num_hidden_layers": 3},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {**LINEAR, **EXPERTS},
    "qwen3_5_text": LINEAR,
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8},
    "deepseek_v32": {},
}
PLAIN: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},  # its Conv1D is a linear layer
    "mistral": {"sliding_window": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "mixtral": {"num_local_experts": 2},
    "falcon": {},
    "bloom": {},
    "gpt_neox": {},
    "lfm2": {"layer_types": ["full_attention", "full_attention"]},
}


def without_weights(model_type: str, sizes: dict[str, Any]) -> Any:
    """Return a model without weights: only its structure matters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(model_type, **{**SIZES, **sizes})
        )


@pytest.mark.parametrize("model_type", STATEFUL)
def test_a_model_with_a_state_does_not_accept_packed_rows(model_type: str) -> None:
    reason = enable_packing(without_weights(model_type, STATEFUL[model_type]))
    assert reason is not None
    assert "past any mask" in reason


@pytest.mark.parametrize("model_type", PLAIN)
def test_a_model_with_attention_only_has_no_state(model_type: str) -> None:
    assert why_stateful(without_weights(model_type, PLAIN[model_type])) is None


@pytest.mark.parametrize(
    ("model_type", "layer"),
    [
        ("llama", nn.Conv1d(32, 32, 4, groups=32)),
        ("llama", nn.GRU(32, 32)),
        ("llama", type("CustomMambaMixer", (nn.Module,), {})()),
        ("llama", type("GatedDeltaNet", (nn.Module,), {})()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_stateful_layer_of_custom_code_is_detected(model_type: str, layer: nn.Module) -> None:
    model = without_weights(model_type, {})
    model.model.layers[0].extra = layer
    assert why_stateful(model) is not None
    model.model.layers[0].extra = nn.Conv1d(32, 32, 1)  # one token at a time
    assert why_stateful(model) is None


def test_a_convolution_in_a_tower_is_not_a_state() -> None:
    model = without_weights("llama", {})
    model.audio_tower = nn.Conv1d(8, 8, 3)
    assert why_stateful(model) is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_of_a_hybrid_model_uses_plain_rows_in_every_precision(
    tmp_path: Path, precision: str
) -> None:
    from unidpo_mm.plugins import load_family

    folder = load_family("text").tiny(tmp_path / "m", model_type="qwen3_5_text", **LINEAR)
    settings: dict[str, Any] = {"loss_type": "dpo", "model_init_kwargs": {"dtype": precision}}
    trainer = make_trainer(folder, mixed_rows(images=False), config(tmp_path / "a", **settings))
    assert trainer.layout.layout == "plain"
    assert "past any mask" in trainer.layout.reason
    for layout in ("packed", "joined"):
        args = config(tmp_path / "b", layout=layout, **settings)
        with pytest.raises(ModelError, match=rf"model.layout: rows cannot be {layout}: .*past any"):
            make_trainer(folder, mixed_rows(images=False), args)


@pytest.mark.parametrize("model_type", ["qwen3_5", "lfm2_vl"])
def test_a_hybrid_model_with_images_shares_images_but_not_rows(
    checkpoint: Callable[[str], Path], tmp_path: Path, model_type: str
) -> None:
    """In bfloat16, a comparison of the layouts would not see that responses mix."""
    rows = [
        {"prompt": "What?", "images": [make_image(1)], "chosen": "A square", "rejected": "Blue"}
    ]
    args = config(tmp_path, loss_type="dpo", bf16=True, max_steps=1)
    trainer = make_trainer(checkpoint(model_type), rows, args)
    assert trainer.layout.layout == "plain"
    assert "past any mask" in trainer.layout.reason
    assert trainer.parts.logp_model.takes_features
    trainer.train()
    groups = [trainer.parts.adapter.encode(row) for row in trainer.parts.train_rows]
    inputs = trainer.data_collator(groups)["batch"].inputs
    assert len(inputs.tokens["input_ids"]) == 2  # a row per response
    assert len(inputs.images.order) == 2 * groups[0].images.entries  # of the images of one group
