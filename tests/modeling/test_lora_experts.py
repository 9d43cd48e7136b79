"""Experts in 3-d tensors, which LoRA does not adapt, are reported."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import family_name, load_tiny
from peft import LoraConfig, get_peft_model

from unidpo_mm.modeling.lora_targets import warn_of_experts
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


def warned(
    folder: Path, model_type: str, caplog: pytest.LogCaptureFixture, **settings: Any
) -> list[str]:
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **settings)
    policy = get_peft_model(load_tiny(folder).model, config)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="unidpo_mm"):
        warn_of_experts(policy, load_family(family_name(model_type)))
    return caplog.messages


def test_missed_experts_are_reported_with_their_share(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = warned(checkpoint("qwen3_vl_moe"), "qwen3_vl_moe", caplog)
    assert "(experts.gate_up_proj, experts.down_proj)" in message
    share = int(message.split(" % of the weights")[0].rpartition(" ")[2])
    assert 5 < share < 95


@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_models_without_such_experts_have_no_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, model_type: str
) -> None:
    assert warned(checkpoint(model_type), model_type, caplog) == []


def test_adapted_experts_have_no_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    parameters = ["experts.gate_up_proj", "experts.down_proj"]
    kind = "qwen3_vl_moe"
    assert warned(checkpoint(kind), kind, caplog, target_parameters=parameters) == []
