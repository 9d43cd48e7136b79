"""The scorer is compared with the model itself before anything trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import load_tiny
from torch import nn

from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.scoring import LogitTransform, ScoringModel
from unidpo_mm.training.guard import check_scorer

Checkpoint = Callable[[str], Path]


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen3", "llava", "llava_onevision", "qwen2_vl", "qwen3_vl"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_whose_head_follows_the_decoder_pass(
    checkpoint: Checkpoint, model_type: str, dtype: torch.dtype
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    scorer = ScoringModel(loaded.model.to(dtype)).train()
    check_scorer(scorer, loaded.adapter, "cpu")
    assert scorer.training


def test_a_layer_between_decoder_and_head_is_noticed(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    scorer = ScoringModel(loaded.model)

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

    scorer.model = Between(loaded.model)
    with pytest.raises(ModelError, match="not applied to the hidden states of its base model"):
        check_scorer(scorer, loaded.adapter, "cpu")


def test_a_scale_that_the_configuration_does_not_tell_is_noticed(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    scorer = ScoringModel(loaded.model)
    scorer.transform = LogitTransform(scale=0.5)
    with pytest.raises(ModelError, match="differ from its own by"):
        check_scorer(scorer, loaded.adapter, "cpu")
