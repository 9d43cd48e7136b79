"""Images run once for all responses and passes, and never backward through a frozen tower."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    EVERY_IMAGE_TYPE,
    IMAGE_TYPES,
    build_reference,
    encoded,
    load_tiny,
    logp_model_of,
    mixed_rows,
)
from torch import Tensor

from unidpo_mm.data.collate import collate
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.modeling.parts import freeze_parts
from unidpo_mm.modeling.references.kinds import FrozenCopy
from unidpo_mm.modeling.vision import MediaFeatures, trains_vision, vision_weights

Checkpoint = Callable[[str], Path]


@pytest.fixture(params=IMAGE_TYPES)
def loaded(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Any:
    tiny = load_tiny(checkpoint(request.param))
    freeze_parts(tiny.model, tiny.family, ["vision_tower", "projector"])
    return tiny


def batch_of(loaded: Any, **options: Any) -> Any:
    groups = encoded(loaded, mixed_rows(images=True))
    return collate(groups, pad_token_id=loaded.adapter.pad_token_id, **options)


class TowerCalls:
    """Calls of `get_image_features`: the number of images, and whether gradients were enabled."""

    def __init__(self, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, bool]] = []
        model = loaded.model.model
        compute = model.get_image_features

        def watched(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
            output = compute(pixel_values, *args, **kwargs)
            self.calls.append((len(output.pooler_output), output.pooler_output[0].requires_grad))
            return output

        watched.__signature__ = inspect.signature(compute)
        monkeypatch.setattr(model, "get_image_features", watched)


def test_plain_rows_share_the_images_of_their_group(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, once = batch_of(loaded), batch_of(loaded, media_once=True)
    logp_model = logp_model_of(loaded)
    with torch.no_grad():
        expected = compute_logps(logp_model, loaded.adapter, each)
        tower = TowerCalls(loaded, monkeypatch)
        logps = compute_logps(logp_model, loaded.adapter, once)
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)
    assert tower.calls == [(3, False)]
    assert len(once.inputs.images.order) == 6


def every_type() -> list[Any]:
    return [
        pytest.param(name, marks=[] if name in IMAGE_TYPES else pytest.mark.slow)
        for name in EVERY_IMAGE_TYPE
    ]


@pytest.mark.parametrize("model_type", every_type())
def test_images_that_are_rounded_by_the_loader_give_the_same_log_probs(
    model_type: str, checkpoint: Checkpoint
) -> None:
    tiny = load_tiny(checkpoint(model_type))
    logp_model = logp_model_of(tiny)
    rows = [row for row in mixed_rows(images=True) if row.images]  # some types need one
    pad, numbers = tiny.adapter.pad_token_id, []
    for dtype in (None, torch.bfloat16):
        batch = collate(encoded(tiny, rows), pad_token_id=pad, media_dtype=dtype)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            numbers.append(compute_logps(logp_model, tiny.adapter, batch))
    assert torch.equal(*numbers) == tiny.adapter.rounds_pixels


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_policy_and_reference_share_one_pass_without_gradients(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    if layout == "packed":
        enable_packing(loaded.model)
    logp_model = logp_model_of(loaded)
    reference = build_reference("frozen_copy", logp_model, loaded.adapter)
    assert isinstance(reference, FrozenCopy)
    batch = batch_of(loaded, layout=layout, media_once=True)
    tower, images = TowerCalls(loaded, monkeypatch), MediaFeatures()
    expected = reference.token_logps(logp_model, batch)
    shared = reference.token_logps(logp_model, batch, images)
    # even with hooks that make every embedding require gradients, as TRL sets them
    loaded.model.enable_input_require_grads()
    logps = compute_logps(logp_model, loaded.adapter, batch, images)
    logps.sum().backward()
    assert torch.equal(shared, expected)
    assert torch.equal(logps.detach(), expected)
    assert not tower.calls  # the pass of the reference has filled `images`
    assert any(p.grad is not None for p in loaded.model.model.get_decoder().parameters())
    compute_logps(logp_model, loaded.adapter, batch)
    assert tower.calls == [(3, False)]


def test_a_tower_or_projector_that_trains_gets_its_gradients(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_parts(loaded.model, loaded.family, ["vision_tower"])
    batch = batch_of(loaded, media_once=True)
    logp_model = logp_model_of(loaded)
    reference = build_reference("frozen_copy", logp_model, loaded.adapter)
    images = MediaFeatures()
    assert reference is not None
    reference.token_logps(logp_model, batch, images)
    assert not images.outputs
    tower = TowerCalls(loaded, monkeypatch)
    compute_logps(logp_model, loaded.adapter, batch, images).sum().backward()
    assert tower.calls == [(3, True)]
    trained = [p for p in loaded.model.parameters() if p.requires_grad]
    decoder = {id(p) for p in loaded.model.model.get_decoder().parameters()}
    projector = [p for p in trained if id(p) not in decoder and p.grad is not None]
    assert any(p.grad.abs().sum() > 0 for p in projector if p.grad is not None)


def test_a_frozen_copy_copies_trainable_weights_only(loaded: Any) -> None:
    logp_model = logp_model_of(loaded)
    reference = build_reference("frozen_copy", logp_model, loaded.adapter)
    assert isinstance(reference, FrozenCopy)
    policy = {id(p) for p in logp_model.parameters()}
    copied = sum(p.numel() for p in reference.logp_model.parameters() if id(p) not in policy)
    assert copied == sum(p.numel() for p in logp_model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "frozen", [[], ["vision_tower"], ["vision_tower", "projector"], ["language_model"]]
)
def test_a_weight_between_pixels_and_language_model_that_trains_is_found(
    loaded: Any, frozen: list[str]
) -> None:
    freeze_parts(loaded.model, loaded.family, frozen)
    trains = any(weight.requires_grad for _, weight in vision_weights(loaded.model))
    assert trains == ("projector" not in frozen)
    assert trains_vision(loaded.model) is trains
