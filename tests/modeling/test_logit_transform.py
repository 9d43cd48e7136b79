"""The transformation of the logits is that of the model, whatever its configuration says."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from unidpo_mm.kernels.logprobs import LogitTransform
from unidpo_mm.modeling.logit_transform import observed_transform
from unidpo_mm.modeling.logp_model import base_and_head

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


def without_weights(model_type: str, **settings: Any) -> Any:
    with torch.device("meta"):
        config = AutoConfig.for_model(model_type, **SIZES, **settings)
        return AutoModelForCausalLM.from_config(config)


def transform_of(model: Any) -> LogitTransform:
    return observed_transform(model, *base_and_head(model))


@pytest.mark.parametrize(
    ("model_type", "settings", "expected"),
    [
        ("llama", {}, LogitTransform()),
        ("llama", {"logit_scale": 0.5}, LogitTransform()),  # a setting that the class ignores
        ("cohere2", {"logit_scale": 0.1}, LogitTransform(scale=0.1)),
        ("granite", {"logits_scaling": 8.0}, LogitTransform(scale=0.125)),
        ("gemma2", {"final_logit_softcapping": 9.0}, LogitTransform(softcap=9.0)),
    ],
)
def test_the_transformation_is_that_of_the_class(
    model_type: str, settings: dict[str, float], expected: LogitTransform
) -> None:
    model = without_weights(model_type, **settings)
    assert transform_of(model) == expected
    base, head = base_and_head(model)
    assert "forward" not in vars(base) | vars(head)


class Wrapper(nn.Module):
    """A model whose logits are twice those of its head, which no setting describes."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.model, self.lm_head, self.config = inner.model, inner.lm_head, inner.config

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        output = self.model(input_ids, **kwargs)
        output.logits = 2 * self.lm_head(output[0])
        return output


def test_a_factor_that_no_setting_describes_is_observed() -> None:
    inner = without_weights("cohere2", logit_scale=0.1)
    wrapper = Wrapper(inner)
    assert observed_transform(wrapper, wrapper.model, wrapper.lm_head) == LogitTransform(scale=2.0)


def test_the_configuration_decides_if_the_model_cannot_be_observed() -> None:
    inner = without_weights("cohere2", logit_scale=0.1)
    wrapper = Wrapper(inner)
    base, head = base_and_head(without_weights("llama"))  # modules that the wrapper does not call
    assert observed_transform(wrapper, base, head) == LogitTransform(scale=0.1)


def test_a_transformation_of_another_form_is_left_to_the_check_of_the_log_probs() -> None:
    class Squared(Wrapper):
        def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
            output = self.model(input_ids, **kwargs)
            output.logits = self.lm_head(output[0]) ** 2
            return output

    model = Squared(without_weights("cohere2", logit_scale=0.1))
    assert observed_transform(model, model.model, model.lm_head) == LogitTransform(scale=0.1)
