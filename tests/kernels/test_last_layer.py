"""The last layer runs for the used positions only; `test_packing.py` compares its results."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import encoded, load_tiny, logp_model_of, mixed_rows, relative_difference
from torch import Tensor

from unidpo_mm.config import LoraOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.kernels import last_layer
from unidpo_mm.kernels.group_spans import GroupSpan
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.parts import add_lora
from unidpo_mm.records import GroupBatch

Checkpoint = Callable[[str], Path]


def packed(loaded: LoadedModel, *, images: bool, side: Any = "right") -> GroupBatch:
    groups = encoded(loaded, mixed_rows(images=images))
    pad = loaded.adapter.pad_token_id
    return collate(groups, pad_token_id=pad, layout="packed", padding_side=side)


def positions_run(loaded: LoadedModel, batch: GroupBatch, logp_model: LogpModel) -> dict[str, int]:
    """Return the number of positions that each linear layer of the last layer ran for."""
    counted: dict[str, int] = {}
    handles = []
    for name, module in loaded.model.get_decoder().layers[-1].named_modules():  # type: ignore[operator]
        if isinstance(module, torch.nn.Linear):

            def count(module: Any, args: Any, name: str = name) -> None:
                counted[name] = args[0][..., 0].numel()

            handles.append(module.register_forward_pre_hook(count))
    compute_logps(logp_model, loaded.adapter, batch)
    for handle in handles:
        handle.remove()
    return counted


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_only_keys_and_values_are_computed_for_prompts(
    checkpoint: Checkpoint, model_type: str, side: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    enable_packing(loaded.model)
    batch = packed(loaded, images=model_type != "llama", side=side)
    positions = positions_run(loaded, batch, logp_model_of(loaded))
    total = batch.inputs.tokens["input_ids"].numel()
    used = int((batch.inputs.segment > 0).sum()) + len(
        batch.inputs.segment
    )  # the last token of every prompt
    assert used < total / 2
    for name, count in positions.items():
        assert count == (total if name.endswith(("k_proj", "v_proj")) else used), name


def test_a_lora_adapter_runs_for_the_used_positions(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    model = add_lora(loaded.model, loaded.family, LoraOptions(r=2))
    enable_packing(loaded.model)
    batch = packed(loaded, images=False)
    positions = positions_run(loaded, batch, LogpModel(model))
    used = int((batch.inputs.segment > 0).sum()) + len(batch.inputs.segment)
    assert positions["self_attn.q_proj.lora_A.default"] == used
    assert positions["mlp.down_proj.lora_B.default"] == used


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "llava", "qwen2_vl"])
def test_the_recomputation_of_a_checkpointed_last_layer_is_the_same(
    checkpoint: Checkpoint, model_type: str
) -> None:
    grads = []
    for checkpointed in (False, True):
        loaded = load_tiny(checkpoint(model_type))
        enable_packing(loaded.model)
        logp_model = logp_model_of(loaded).train()
        if checkpointed:
            logp_model.activation_checkpointing_enable()
        batch = packed(loaded, images=model_type in ("llava", "qwen2_vl"))
        logps = compute_logps(logp_model, loaded.adapter, batch)
        (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
        grads.append({n: p.grad for n, p in logp_model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert relative_difference(*grads) < 1e-6


def test_a_missing_position_is_detected(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny(checkpoint("llama"))
    enable_packing(loaded.model)
    batch = packed(loaded, images=False)
    with torch.no_grad():
        right = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
        used_positions = last_layer.used_positions

        def without_the_prompt(spans: Sequence[GroupSpan], width: int) -> Tensor:
            return used_positions([span._replace(unused=span.prompt) for span in spans], width)

        monkeypatch.setattr(last_layer, "used_positions", without_the_prompt)
        wrong = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    assert (right - wrong).abs().max() > 1e-3
