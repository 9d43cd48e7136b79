"""Log-probs are compared with the logits of the model before training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import load_tiny
from torch import nn

from unidpo_mm.errors import ModelError
from unidpo_mm.kernels.logprobs import LogitTransform
from unidpo_mm.modeling.logp_model import LogpModel
from unidpo_mm.training.startup_checks import check_logp_model

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
    check_logp_model(logp_model, loaded.adapter, "cpu")
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
        check_logp_model(logp_model, loaded.adapter, "cpu")


def test_a_scale_that_is_not_in_the_configuration_is_detected(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    logp_model = LogpModel(loaded.model)
    logp_model.transform = LogitTransform(scale=0.5)
    with pytest.raises(ModelError, match="log-probs computed from the hidden states differ by"):
        check_logp_model(logp_model, loaded.adapter, "cpu")
