"""The last layer runs for what is read, and gives what it gave; `test_packing.py` has the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import encoded, load_tiny, logp_model_of, mixed_rows, relative_difference
from torch import Tensor

from unidpo_mm.data.collate import collate
from unidpo_mm.kernels import last_layer
from unidpo_mm.kernels.branch_attention import GroupSpan
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.parts import LoraSettings, add_lora
from unidpo_mm.records import GroupBatch

Checkpoint = Callable[[str], Path]


def packed(loaded: LoadedModel, *, images: bool, side: Any = "right") -> GroupBatch:
    groups = encoded(loaded, mixed_rows(images=images))
    pad = loaded.adapter.pad_token_id
    return collate(groups, pad_token_id=pad, layout="packed", padding_side=side)


def positions_run(loaded: LoadedModel, batch: GroupBatch, logp_model: LogpModel) -> dict[str, int]:
    """Return how many positions each linear layer of the last decoder layer ran for."""
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
def test_prompts_give_keys_and_values_alone(
    checkpoint: Checkpoint, model_type: str, side: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    enable_packing(loaded.model)
    batch = packed(loaded, images=model_type != "llama", side=side)
    found = positions_run(loaded, batch, logp_model_of(loaded))
    everything = batch.token_inputs["input_ids"].numel()
    answers = int((batch.segment > 0).sum())
    read = answers + len(batch.segment)  # of every prompt the last token
    assert read < everything / 2
    for name, positions in found.items():
        expected = everything if name.endswith(("k_proj", "v_proj")) else read
        assert positions == expected, name


def test_a_lora_inside_runs_for_what_is_read(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    model = add_lora(loaded.model, loaded.family, LoraSettings(r=2))
    enable_packing(loaded.model)
    batch = packed(loaded, images=False)
    found = positions_run(loaded, batch, LogpModel(model))
    read = int((batch.segment > 0).sum()) + len(batch.segment)
    assert found["self_attn.q_proj.lora_A.default"] == read
    assert found["mlp.down_proj.lora_B.default"] == read


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "llava", "qwen2_vl"])
def test_a_checkpointed_last_layer_is_the_same_the_second_time(
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


def test_a_position_too_few_shows(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_tiny(checkpoint("llama"))
    enable_packing(loaded.model)
    batch = packed(loaded, images=False)
    with torch.no_grad():
        right = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
        own = last_layer._positions_read

        def without_the_prompt(spans: Tensor, width: int) -> Tensor:
            lines = [
                s._replace(unread=s.prompt).as_line(spans.shape[1]) for s in GroupSpan.of(spans)
            ]
            return own(torch.tensor(lines), width)

        monkeypatch.setattr(last_layer, "_positions_read", without_the_prompt)
        wrong = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    assert (right - wrong).abs().max() > 1e-3
