"""Values computed on the CPU before a batch moves equal those that the model would compute."""

import dataclasses
from typing import Any

import pytest
import torch
from builders import encoded, logp_model_of, make_clip, mixed_rows, row
from torch import Tensor

from unidpo_mm.adapter import tower_inputs
from unidpo_mm.data.collate import collate
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.modeling.placement import place_batch
from unidpo_mm.records import EncoderInputs, GroupBatch, ModelInputs

OTHER_TYPES = ("qwen2_vl", "qwen3_vl", "qwen3_5")


def batch_for(loaded: Any, layout: str, *, computed: bool, videos: bool = False) -> GroupBatch:
    rows = mixed_rows(images=True)
    if videos:
        rows.append(row("film", "What is it?", ("A square", "Blue"), videos=[make_clip(3)]))
    return collate(
        encoded(loaded, rows),
        pad_token_id=loaded.adapter.pad_token_id,
        layout=layout,
        media_once=True,
        tower_inputs=tower_inputs(loaded.adapter) if computed else None,
    )


@torch.no_grad()
def logps_of(loaded: Any, batch: GroupBatch, *, place: bool = False) -> Tensor:
    enable_packing(loaded.model)
    policy = logp_model_of(loaded)
    batch = place_batch(batch, policy, loaded.adapter, "cpu") if place else batch
    return compute_logps(policy, loaded.adapter, batch)


@pytest.mark.parametrize("layout", ["plain", "joined"])
@pytest.mark.parametrize(
    "model_type",
    [
        "qwen2_5_vl",
        *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_TYPES),
    ],
)
def test_log_probs_are_equal_to_the_bit(unchanged: Any, model_type: str, layout: str) -> None:
    if model_type == "qwen3_5" and layout == "joined":
        pytest.skip("recurrent layers need plain rows")
    loaded = unchanged(model_type)
    expected = logps_of(loaded, batch_for(loaded, layout, computed=False, videos=True))
    batch = batch_for(loaded, layout, computed=True, videos=True)
    assert batch.inputs.encoders["image"].grids
    assert batch.inputs.encoders["video"].ends
    assert torch.equal(logps_of(loaded, batch, place=True), expected)


def test_wrong_values_would_be_noticed(unchanged: Any) -> None:
    loaded = unchanged("qwen2_5_vl")
    batch = batch_for(loaded, "joined", computed=True)
    expected = logps_of(loaded, batch, place=True)
    encoder = batch.inputs.encoders["image"]
    turned = {name: tensor.flip(0) for name, tensor in encoder.tensors.items()}
    changed = with_encoder(batch.inputs, dataclasses.replace(encoder, tensors=turned))
    assert not torch.equal(logps_of(loaded, dataclasses.replace(batch, inputs=changed)), expected)
    placed = place_batch(batch, logp_model_of(loaded), loaded.adapter, "cpu")
    assert placed.inputs.positions is not None
    shifted = dataclasses.replace(placed.inputs, positions=placed.inputs.positions * 2)
    assert not torch.equal(logps_of(loaded, dataclasses.replace(batch, inputs=shifted)), expected)


def with_encoder(inputs: ModelInputs, encoder: EncoderInputs) -> ModelInputs:
    image = dataclasses.replace(inputs.images, encoder=encoder)
    return dataclasses.replace(inputs, media={**inputs.media, "image": image})


def test_models_with_a_position_per_token_count_none(unchanged: Any) -> None:
    loaded = unchanged("llava")
    batch = batch_for(loaded, "joined", computed=True)
    assert batch.inputs.encoders["image"] == EncoderInputs()
    placed = place_batch(batch, logp_model_of(loaded), loaded.adapter, "cpu")
    assert placed.inputs.positions is None


def test_text_batches_of_models_with_three_positions(unchanged: Any) -> None:
    loaded = unchanged("qwen2_5_vl")
    rows = mixed_rows(images=False)
    for layout in ("plain", "joined"):
        batch = collate(
            encoded(loaded, rows), pad_token_id=loaded.adapter.pad_token_id, layout=layout
        )
        expected = logps_of(loaded, batch)
        assert torch.equal(logps_of(loaded, batch, place=True), expected)


def test_sizes_stay_on_the_host_when_a_batch_moves(unchanged: Any) -> None:
    batch = batch_for(unchanged("qwen2_5_vl"), "joined", computed=True)
    moved = batch.to("meta")
    encoder = moved.inputs.encoders["image"]
    assert {tensor.device.type for tensor in encoder.tensors.values()} == {"meta"}
    assert encoder.ends == batch.inputs.encoders["image"].ends
    assert moved.targets.sizes == tuple(batch.targets.lengths.tolist())
    assert moved.inputs.spans == batch.inputs.spans
