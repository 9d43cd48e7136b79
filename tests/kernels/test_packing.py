"""Packed and joined rows equal plain rows in log-probs and gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    IMAGE_TYPES,
    MODEL_TYPES,
    encoded,
    load_tiny,
    logp_model_of,
    mixed_rows,
    relative_difference,
    with_inputs,
)
from torch import Tensor

from unidpo_mm.data.collate import collate
from unidpo_mm.kernels import packing
from unidpo_mm.kernels.logprobs import sequence_logps
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling import logp_model
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.plugins import load_family
from unidpo_mm.records import GroupBatch, MediaInputs

Checkpoint = Callable[[str], Path]

OTHER_TYPES = (
    "mistral",
    "gemma3_text",
    "qwen2",
    "phi3",
    "cohere2",
    "olmo2",
    "gpt_neox",
    "starcoder2",
)
"""Decoders with sliding windows, several kinds of layers, or other norms and heads."""


def batches(
    loaded: Any, rows: Any, *, side: Any = "right", layout: Any = "packed"
) -> tuple[GroupBatch, GroupBatch]:
    groups = encoded(loaded, rows)
    pad = loaded.adapter.pad_token_id
    plain, shared = (
        collate(groups, pad_token_id=pad, padding_side=side, layout=name)
        for name in ("plain", layout)
    )
    return plain, shared


def logps_and_gradients(loaded: Any, batch: GroupBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return log-probs and the gradients of a weighted sum of them."""
    loaded.model.zero_grad()
    logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    weight = torch.linspace(-1, 2, logps.numel())
    (logps * weight).sum().backward()
    grads = {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}
    return logps.detach(), grads


@pytest.mark.parametrize(
    ("layout", "side"), [("packed", "right"), ("packed", "left"), ("joined", "right")]
)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_shared_prompts_do_not_change_log_probs(
    checkpoint: Checkpoint, model_type: str, layout: str, side: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    enable_packing(loaded.model)
    rows = mixed_rows(images=model_type in IMAGE_TYPES)
    plain, packed = batches(loaded, rows, side=side, layout=layout)
    assert packed.inputs.tokens["input_ids"].shape[0] < plain.inputs.tokens["input_ids"].shape[0]
    plain_logps, grads = logps_and_gradients(loaded, plain)
    packed_logps, packed_grads = logps_and_gradients(loaded, packed)
    torch.testing.assert_close(packed_logps, plain_logps, rtol=0, atol=1e-5)
    assert relative_difference(grads, packed_grads) < 2e-5
    sums = sequence_logps(plain_logps, plain.targets).sum
    packed_sums = sequence_logps(packed_logps, packed.targets).sum
    torch.testing.assert_close(packed_sums, sums, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["packed", "joined"])
@pytest.mark.parametrize("model_type", OTHER_TYPES)
def test_shared_prompts_do_not_change_log_probs_of_other_decoders(
    tmp_path: Path, model_type: str, layout: str
) -> None:
    sizes = {"sliding_window": 8} if model_type in ("mistral", "gemma3_text", "cohere2") else {}
    loaded = load_tiny(load_family("text").tiny(tmp_path, model_type=model_type, **sizes))
    enable_packing(loaded.model)
    plain, packed = batches(loaded, mixed_rows(images=False), layout=layout)
    with torch.no_grad():
        plain_logps, packed_logps = (
            compute_logps(logp_model_of(loaded), loaded.adapter, b) for b in (plain, packed)
        )
    torch.testing.assert_close(packed_logps, plain_logps, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "side"), [("packed", "right"), ("packed", "left"), ("joined", "right")]
)
def test_spans_of_the_collator_are_those_of_the_tensors(
    unchanged: Any, layout: str, side: str
) -> None:
    rows = mixed_rows(images=True)
    plain, shared = batches(unchanged("llava"), rows, layout=layout, side=side)
    inputs = shared.inputs
    from_lines = packing.Packing(inputs.segment, inputs.row_position, inputs.spans).spans
    assert torch.equal(from_lines, packing.group_spans(inputs.segment, inputs.row_position))
    assert len(inputs.spans) == len(rows)
    assert not plain.inputs.spans


@pytest.mark.parametrize("model_type", ["llama", "qwen2_vl", "llava"])
def test_sums_in_double_precision_agree_to_ten_digits(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type), dtype="auto")
    loaded.model.double()
    enable_packing(loaded.model)
    rows = mixed_rows(images=model_type in IMAGE_TYPES)
    for layout in ("packed", "joined"):
        sums = []
        for batch in batches(loaded, rows, layout=layout):
            pixels = {
                name: tensor.double() if tensor.is_floating_point() else tensor
                for name, tensor in batch.inputs.images.inputs.items()
            }
            batch = with_inputs(batch, media={"image": MediaInputs(pixels)})
            with torch.no_grad():
                logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
            assert logps.dtype == torch.float64
            sums.append(sequence_logps(logps, batch.targets).sum)
        torch.testing.assert_close(sums[1], sums[0], rtol=0, atol=1e-10)


def test_joined_rows_have_no_padding(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"))
    rows = mixed_rows(images=True)
    _, joined = batches(loaded, rows, layout="joined")
    groups = encoded(loaded, rows)
    tokens = sum(g.prompt_ids.numel() + sum(map(len, g.response_ids)) for g in groups)
    assert joined.inputs.segment.shape == (1, tokens)
    assert int(joined.inputs.tokens["attention_mask"].sum()) == tokens


def test_images_and_prompts_are_computed_once_per_group(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"))
    rows = mixed_rows(images=True)
    plain, packed = batches(loaded, rows)
    assert packed.inputs.images.inputs["pixel_values"].shape[0] == 3
    assert plain.inputs.images.inputs["pixel_values"].shape[0] == 6
    prompts = sum(group.prompt_ids.numel() for group in encoded(loaded, rows))
    assert int((packed.inputs.segment == 0).sum()) == prompts


def as_one_prompt(segment: Tensor, row_position: Tensor, lines: Any) -> packing.Packing:
    """Return a packing in which all groups of a joined row are the prompt of the first one."""
    later = row_position.clamp(min=1)
    later[0, 0] = 0
    return packing.Packing(segment.clamp(max=0), later)


@pytest.mark.parametrize(
    "mistake", ["branch attends to branch", "packed positions", "group attends to group"]
)
@pytest.mark.parametrize("model_type", ["llama", "mistral"])  # in pieces and with a mask
def test_a_mistake_in_the_layout_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str, model_type: str
) -> None:
    sizes = {"sliding_window": 8} if model_type == "mistral" else {}
    loaded = load_tiny(load_family("text").tiny(tmp_path, model_type=model_type, **sizes))
    enable_packing(loaded.model)
    layout = "joined" if mistake == "group attends to group" else "packed"
    plain, packed = batches(loaded, mixed_rows(images=False), layout=layout)
    packed = with_inputs(packed, spans=())  # they are read from the changed tensors
    if mistake == "group attends to group":
        monkeypatch.setattr(logp_model, "Packing", as_one_prompt)
    elif mistake == "branch attends to branch":
        mask_function = packing.Packing.mask_function

        def leaky(self: Any, model_rule: Any) -> Any:
            merged = packing.Packing(self.segment.clamp(max=1), self.row_position)
            return mask_function(merged, model_rule)

        monkeypatch.setattr(packing.Packing, "mask_function", leaky)
        spans = packing.group_spans
        monkeypatch.setattr(packing, "group_spans", lambda seg, pos: spans(seg.clamp(max=1), pos))
    else:
        position = packed.inputs.row_position
        position.copy_(torch.arange(position.shape[1]).expand_as(position))
    with torch.no_grad():
        right, wrong = (
            compute_logps(logp_model_of(loaded), loaded.adapter, b) for b in (plain, packed)
        )
    assert (right - wrong).abs().max() > 1e-4  # ten times the allowed difference


def test_plain_rows_and_generation_do_not_change(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    plain, _ = batches(loaded, mixed_rows(images=False))
    ids = plain.inputs.tokens["input_ids"][:1, :5]
    with torch.no_grad():
        before = compute_logps(logp_model_of(loaded), loaded.adapter, plain)
        generated = loaded.model.generate(ids, max_new_tokens=4, do_sample=False)
        enable_packing(loaded.model)
        enable_packing(loaded.model)  # a second call changes nothing
        assert torch.equal(compute_logps(logp_model_of(loaded), loaded.adapter, plain), before)
        assert torch.equal(loaded.model.generate(ids, max_new_tokens=4, do_sample=False), generated)
