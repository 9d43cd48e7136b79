"""Properties of the Qwen-VL family: dynamic resolution, M-RoPE, base models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import QWEN_TYPES, batch_of, load_tiny, logp_model_of, make_image, mixed_rows, row

from unidpo_mm.errors import DataError, ModelError
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.records import MediaSlot, Message

Checkpoint = Callable[[str], Path]

every_type = pytest.mark.parametrize("model_type", QWEN_TYPES)


def patches(adapter: Any, size: tuple[int, int]) -> int:
    group = adapter.encode(row("a", "What is it?", images=[make_image(1, size)]))
    grid = group.images.inputs["image_grid_thw"]
    assert group.images.inputs["pixel_values"].shape[0] == int(grid.prod())
    assert group.images.tokens == int(grid.prod()) // 4  # a token per 2 x 2 patches
    return int(grid.prod())


@every_type
def test_larger_images_have_more_tokens(checkpoint: Checkpoint, model_type: str) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    step = 2 * adapter.processor.image_processor.patch_size
    assert patches(adapter, (step, step)) == 4
    assert patches(adapter, (2 * step, 3 * step)) == 24


@every_type
def test_pixel_limits_scale_images_and_are_saved_with_the_processor(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    from transformers import AutoProcessor

    folder = checkpoint(model_type)
    step = 2 * load_tiny(folder).adapter.processor.image_processor.patch_size
    limits = {"image_min_size": 4 * step**2, "image_max_size": 6 * step**2}
    adapter = load_tiny(folder, **limits).adapter
    assert patches(adapter, (step, step)) == 4 * 4  # enlarged
    assert patches(adapter, (9 * step, 9 * step)) == 4 * 4  # made smaller
    adapter.processor.save_pretrained(tmp_path)
    saved = AutoProcessor.from_pretrained(tmp_path).image_processor.size
    assert dict(saved) == {"shortest_edge": 4 * step**2, "longest_edge": 6 * step**2}


def test_the_processor_that_was_passed_does_not_change(checkpoint: Checkpoint) -> None:
    from transformers import AutoProcessor

    from unidpo_mm.adapter import AdapterOptions
    from unidpo_mm.modeling.load import ModelSource, load_model

    folder = checkpoint("qwen2_vl")
    processor = AutoProcessor.from_pretrained(folder)
    before = dict(processor.image_processor.size)
    source = ModelSource(name_or_path=str(folder))
    adapter: Any = load_model(
        source, AdapterOptions(image_max_size=9999), processor=processor
    ).adapter
    assert dict(processor.image_processor.size) == before
    assert adapter.processor.image_processor.size["longest_edge"] == 9999


def test_a_minimum_above_the_maximum_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"model.image_max_size: .*at least 4000 and at most 300"):
        load_tiny(checkpoint("qwen2_vl"), image_min_size=4000, image_max_size=300)


@pytest.mark.parametrize(("model_type", "why"), [("llava", "a fixed size"), ("llama", "no image")])
def test_limits_are_refused_if_they_have_no_effect(
    checkpoint: Checkpoint, model_type: str, why: str
) -> None:
    with pytest.raises(ModelError, match=rf"model.image_max_size: it is 99,? and .*{why}"):
        load_tiny(checkpoint(model_type), image_max_size=99)


def test_the_error_of_a_long_prompt_suggests_smaller_images(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("qwen2_vl"), max_length=20, image_max_size=9999).adapter
    example = row("a", "What is it?", images=[make_image(1, (90, 90))])
    with pytest.raises(
        DataError, match=r"image tokens and max_length is 20.*make the images smaller"
    ):
        adapter.encode(example)


def test_the_error_of_a_refused_image_names_it_and_its_row(
    checkpoint: Checkpoint,
) -> None:
    adapter = load_tiny(checkpoint("qwen2_vl")).adapter
    example = row("a", "What is it?", images=[make_image(1, (400, 1))])
    with pytest.raises(DataError, match=r"row a, field 'images': .*aspect ratio"):
        adapter.encode(example)


@every_type
def test_positions_distinguish_height_and_width(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """A wide and a tall image of the same features differ only by their positions."""
    loaded = load_tiny(checkpoint(model_type))
    step = 2 * loaded.adapter.processor.image_processor.patch_size
    group = loaded.adapter.encode(row("a", "What is it?", images=[make_image(1, (3 * step, step))]))
    inputs = {
        "input_ids": torch.cat([group.prompt_ids, group.response_ids[0]])[None],
        "mm_token_type_ids": torch.cat(
            [group.token_extras["mm_token_type_ids"][n] for n in (0, 1)]
        )[None],
        "pixel_values": group.images.inputs["pixel_values"],
    }
    grid = group.images.inputs["image_grid_thw"]
    model: Any = loaded.model.eval()
    with torch.no_grad():
        features = model.model.get_image_features(inputs["pixel_values"], grid, return_dict=True)
        # the tower also depends on the grid: from here on its output is fixed
        monkeypatch.setattr(model.model, "get_image_features", lambda *_, **__: features)
        wide = model(**inputs, image_grid_thw=grid).logits
        tall = model(**inputs, image_grid_thw=grid[:, [0, 2, 1]]).logits
        monkeypatch.setattr(
            model.model,
            "compute_3d_position_ids",
            lambda **_: torch.arange(wide.shape[1]).expand(3, 1, -1),
        )
        flat = [model(**inputs, image_grid_thw=g).logits for g in (grid, grid[:, [0, 2, 1]])]
    assert not torch.allclose(wide, tall, atol=1e-4)
    assert torch.equal(*flat)  # without such positions they are equal


@every_type
def test_a_generation_in_between_does_not_change_positions(
    checkpoint: Checkpoint, model_type: str
) -> None:
    """The model keeps position offsets of its last prompt, which later batches must ignore."""
    from unidpo_mm.training.evaluation import generate_samples

    loaded = load_tiny(checkpoint(model_type))
    rows = mixed_rows(images=True)
    batch, logp_model = batch_of(loaded, rows), logp_model_of(loaded)
    text_only = batch_of(loaded, rows[:3])
    with torch.no_grad():
        before = [compute_logps(logp_model, loaded.adapter, b) for b in (batch, text_only)]
        generate_samples(loaded.model, loaded.adapter, rows[-1:], max_new_tokens=3, device="cpu")
        after = [compute_logps(logp_model, loaded.adapter, b) for b in (batch, text_only)]
    for first, second in zip(before, after, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("model_type", "other", "message"),
    [
        ("qwen2_vl", "llava", r"^processing_class: .*tokenizer has '<image>' at 3\. Pass the proc"),
        ("qwen2_vl", "qwen3_vl", "patches have 16 pixels, and the model expects 14"),
        ("llava", "qwen2_vl", r"^processing_class: .*tokenizer has '<\|image_pad\|>' at"),
    ],
    ids=["family", "patches", "reverse"],
)
def test_the_processor_of_another_model_is_refused(
    checkpoint: Checkpoint, model_type: str, other: str, message: str
) -> None:
    from transformers import AutoProcessor

    from unidpo_mm.adapter import AdapterOptions
    from unidpo_mm.modeling.load import ModelSource, load_model

    source = ModelSource(name_or_path=str(checkpoint(model_type)))
    processor = AutoProcessor.from_pretrained(checkpoint(other))
    with pytest.raises(ModelError, match=message):
        load_model(source, AdapterOptions(), processor=processor)


def test_raw_prompts_of_a_base_model_have_vision_markers(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("qwen2_vl"), prompt_style="raw")
    adapter: Any = loaded.adapter
    example = row("a", "What is it?", images=[make_image(1)])
    text = adapter.processor.tokenizer.decode(adapter.encode(example).prompt_ids)
    assert text.startswith("<|vision_start|><|image_pad|>")
    assert text.replace("<|image_pad|>", "") == "<|vision_start|><|vision_end|>What is it?"


def test_interleaved_images_keep_their_order(checkpoint: Checkpoint) -> None:
    adapter: Any = load_tiny(checkpoint("qwen2_vl")).adapter
    slot = MediaSlot("image")
    messages = [Message("user", ("First ", slot, " then ", slot))]
    small, large = make_image(1, (28, 28)), make_image(2, (56, 56))
    for images, grids in (
        ((small, large), [[1, 2, 2], [1, 4, 4]]),
        ((large, small), [[1, 4, 4], [1, 2, 2]]),
    ):
        group = adapter.encode(row("a", messages, images=images))
        assert group.images.inputs["image_grid_thw"].tolist() == grids
