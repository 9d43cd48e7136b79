"""Liger kernels reach the transformers model inside, or are refused with a reason."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from builders import load_tiny, mixed_rows
from trainers import config, make_trainer

from unidpo_mm import UniDPOConfig
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling import liger
from unidpo_mm.modeling.liger import apply_liger_kernels
from unidpo_mm.training.setup import prepare_model

Checkpoint = Callable[[str], Path]


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Install a package in place of liger-kernel, which records what it is applied to."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    package, transformers = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
    patches: Any = ModuleType("liger_kernel.transformers.monkey_patch")
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
    vars(transformers)["_apply_liger_kernel_to_instance"] = lambda model, **settings: calls.append(
        (model, settings)
    )
    for module in (package, transformers, patches):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(liger, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return calls


def test_the_kernels_are_applied_to_the_model_inside_a_lora_model(
    checkpoint: Checkpoint, applied: list[Any]
) -> None:
    loaded = load_tiny(checkpoint("llama"))
    args = UniDPOConfig(
        output_dir="out", use_cpu=True, use_liger_kernel=True, liger_kernel_config={"rope": False}
    )
    prepare_model(loaded.model, loaded.family, args, LoraOptions(r=2))
    ((model, settings),) = applied
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model is loaded.model
    assert settings == {
        "rope": False,
        "cross_entropy": False,
        "fused_linear_cross_entropy": False,
    }


def test_a_run_applies_them_once(
    checkpoint: Checkpoint,
    applied: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import trainer as library

    by_library: list[Any] = []
    monkeypatch.setattr(library, "apply_liger_kernel", lambda *args: by_library.append(args))
    args = config(tmp_path, use_liger_kernel=True, max_steps=1)
    make_trainer(checkpoint("llama"), mixed_rows(images=False), args).train()
    assert len(applied) == 1
    assert not by_library  # it does not recognize the model, and would warn
    library.apply_liger_kernel(None, None)
    assert by_library  # after the run, it is as it was


def test_they_are_refused_where_they_have_no_effect(
    checkpoint: Checkpoint, applied: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny(checkpoint("llama")).model
    with pytest.raises(ModelError, match="fused_linear_cross_entropy replaces the loss"):
        apply_liger_kernels(model, {"fused_linear_cross_entropy": True})
    model.config.model_type = "other"
    with pytest.raises(ModelError, match="no kernels for models of type 'other'"):
        apply_liger_kernels(model, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="need a GPU"):
        apply_liger_kernels(model, None)
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install liger-kernel"):
        apply_liger_kernels(model, None)
    assert not applied
