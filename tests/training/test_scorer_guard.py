"""Log-probs are compared with the logits of the model before training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import load_tiny, row
from torch import nn

from unidpo_mm.conformance import check_log_probs
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.kernels.logprobs import LogitTransform
from unidpo_mm.modeling.logp_model import LogpModel
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen3", "llava", "llava_onevision", "qwen2_vl", "qwen3_vl"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_whose_head_follows_the_decoder_are_accepted(
    checkpoint: Checkpoint, model_type: str, dtype: torch.dtype
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    logp_model = LogpModel(loaded.model.to(dtype)).train()
    check_log_probs(logp_model, loaded.adapter, "cpu")
    assert logp_model.training


def test_a_layer_between_decoder_and_head_is_detected(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    logp_model = LogpModel(loaded.model)

    class Between(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.inner = model
            self.extra = nn.Linear(32, 32)

        def forward(self, **inputs: torch.Tensor) -> object:
            hidden = self.inner.model(**inputs)
            hidden.logits = self.inner.lm_head(self.extra(hidden.last_hidden_state))
            return hidden

        def get_base_model(self) -> nn.Module:
            return self.inner

    logp_model.model = Between(loaded.model)
    with pytest.raises(ModelError, match="changes hidden states or logits"):
        check_log_probs(logp_model, loaded.adapter, "cpu")


def test_a_scale_that_is_not_in_the_configuration_is_detected(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    logp_model = LogpModel(loaded.model)
    logp_model.transform = LogitTransform(scale=0.5)
    with pytest.raises(ModelError, match="log-probs computed from the hidden states differ by"):
        check_log_probs(logp_model, loaded.adapter, "cpu")


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("llama", {"is_causal": False}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("llava", {"text_config": {"is_causal": False}}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_later_tokens_is_refused(
    tmp_path: Path, model_type: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    family = load_family("llava" if model_type == "llava" else "text")
    family.tiny(tmp_path, model_type=model_type)
    load_tiny(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name, value in settings.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    loaded = load_tiny(tmp_path)
    for parameter in loaded.model.parameters():
        parameter.data.mul_(3)  # random weights of this size hardly attend
    with pytest.raises(ModelError, match="its tokens also attend to later ones"):
        check_log_probs(LogpModel(loaded.model.to(dtype)), loaded.adapter, "cpu")


def test_weights_that_are_not_finite_are_named(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    name, parameter = list(loaded.model.named_parameters())[3]
    with torch.no_grad():
        parameter[0] = torch.nan
    with pytest.raises(ModelError, match=f"weights are infinite or NaN: {name}"):
        check_log_probs(LogpModel(loaded.model), loaded.adapter, "cpu")


def test_rows_take_the_place_of_a_short_text_that_is_refused(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    model, adapter = LogpModel(loaded.model), loaded.adapter
    short = adapter.encode

    def encode(item: Any) -> Any:
        if item.id == "check":
            raise DataError([Problem("check", "refused", "")])
        return short(item)

    adapter.encode = encode
    with pytest.raises(DataError):
        check_log_probs(model, adapter, "cpu")
    assert check_log_probs(model, adapter, "cpu", [row()]).numel()
