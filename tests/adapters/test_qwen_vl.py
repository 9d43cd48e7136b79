"""What is the Qwen-VL family's own: resolution that follows the image, M-RoPE, base models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import QWEN_TYPES, batch_of, load_tiny, logp_model_of, make_image, mixed_rows, row

from unidpo_mm.errors import DataError, ModelError
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.records import ImageSlot, Message

Checkpoint = Callable[[str], Path]

every_type = pytest.mark.parametrize("model_type", QWEN_TYPES)


def patches(adapter: Any, size: tuple[int, int]) -> int:
    group = adapter.encode(row("a", "What is it?", images=[make_image(1, size)]))
    grid = group.image_extras["image_grid_thw"]
    assert group.image_extras["pixel_values"].shape[0] == int(grid.prod())
    assert group.image_tokens == int(grid.prod()) // 4  # 2 x 2 patches make a token
    return int(grid.prod())


@every_type
def test_tokens_follow_the_pixels_of_a_image(checkpoint: Checkpoint, model_type: str) -> None:
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
    limits = {"image_min_pixels": 4 * step**2, "image_max_pixels": 6 * step**2}
    adapter = load_tiny(folder, **limits).adapter
    assert patches(adapter, (step, step)) == 4 * 4  # a small one is enlarged
    assert patches(adapter, (9 * step, 9 * step)) == 4 * 4  # a large one is made smaller
    adapter.processor.save_pretrained(tmp_path)
    saved = AutoProcessor.from_pretrained(tmp_path).image_processor.size
    assert dict(saved) == {"shortest_edge": 4 * step**2, "longest_edge": 6 * step**2}


def test_a_processor_that_was_given_keeps_its_own_limits(checkpoint: Checkpoint) -> None:
    from transformers import AutoProcessor

    from unidpo_mm.adapter import AdapterOptions
    from unidpo_mm.modeling.load import ModelSource, load_model

    folder = checkpoint("qwen2_vl")
    processor = AutoProcessor.from_pretrained(folder)
    before = dict(processor.image_processor.size)
    source = ModelSource(name_or_path=str(folder))
    adapter: Any = load_model(
        source, AdapterOptions(image_max_pixels=9999), processor=processor
    ).adapter
    assert dict(processor.image_processor.size) == before
    assert adapter.processor.image_processor.size["longest_edge"] == 9999


def test_limits_that_cross_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"model.image_max_pixels: .*at least 4000 and at most 30"):
        load_tiny(checkpoint("qwen2_vl"), image_min_pixels=4000, image_max_pixels=30)


@pytest.mark.parametrize(("model_type", "why"), [("llava", "fixed sizes"), ("llama", "no image")])
def test_limits_are_refused_where_they_would_do_nothing(
    checkpoint: Checkpoint, model_type: str, why: str
) -> None:
    with pytest.raises(ModelError, match=rf"model.image_max_pixels: it is 99 and .*{why}"):
        load_tiny(checkpoint(model_type), image_max_pixels=99)


def test_a_prompt_that_is_too_long_says_that_smaller_images_help(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("qwen2_vl"), max_length=20, image_max_pixels=9999).adapter
    one = row("a", "What is it?", images=[make_image(1, (90, 90))])
    with pytest.raises(DataError, match=r"of images and max_length is 20.*make the images smaller"):
        adapter.encode(one)


def test_a_image_that_the_processor_refuses_is_named_with_its_row(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("qwen2_vl")).adapter
    one = row("a", "What is it?", images=[make_image(1, (400, 1))])
    with pytest.raises(DataError, match=r"row a, field 'images': .*aspect ratio"):
        adapter.encode(one)


@every_type
def test_the_decoder_places_images_in_height_and_width(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """A wide and a tall image of the same features differ by their positions alone."""
    loaded = load_tiny(checkpoint(model_type))
    step = 2 * loaded.adapter.processor.image_processor.patch_size
    group = loaded.adapter.encode(row("a", "What is it?", images=[make_image(1, (3 * step, step))]))
    inputs = {
        "input_ids": torch.cat([group.prompt_ids, group.response_ids[0]])[None],
        "mm_token_type_ids": torch.cat(
            [group.token_extras["mm_token_type_ids"][n] for n in (0, 1)]
        )[None],
        "pixel_values": group.image_extras["pixel_values"],
    }
    grid = group.image_extras["image_grid_thw"]
    model: Any = loaded.model.eval()
    with torch.no_grad():
        seen = model.model.get_image_features(inputs["pixel_values"], grid, return_dict=True)
        # the tower looks at the grid too: from here on it sees the same, whatever the grid
        monkeypatch.setattr(model.model, "get_image_features", lambda *_, **__: seen)
        wide = model(**inputs, image_grid_thw=grid).logits
        tall = model(**inputs, image_grid_thw=grid[:, [0, 2, 1]]).logits
        monkeypatch.setattr(
            model.model,
            "compute_3d_position_ids",
            lambda **_: torch.arange(wide.shape[1]).expand(3, 1, -1),
        )
        flat = [model(**inputs, image_grid_thw=g).logits for g in (grid, grid[:, [0, 2, 1]])]
    assert not torch.allclose(wide, tall, atol=1e-4)
    assert torch.equal(*flat)  # without such positions nothing differs


@every_type
def test_a_generation_in_between_leaves_no_trace_in_the_positions(
    checkpoint: Checkpoint, model_type: str
) -> None:
    """The model keeps position offsets of its last prompt; a batch scored later ignores them."""
    from unidpo_mm.training.evaluation import answer_prompts

    loaded = load_tiny(checkpoint(model_type))
    rows = mixed_rows(images=True)
    batch, logp_model = batch_of(loaded, rows), logp_model_of(loaded)
    text_only = batch_of(loaded, rows[:3])
    with torch.no_grad():
        before = [compute_logps(logp_model, loaded.adapter, one) for one in (batch, text_only)]
        answer_prompts(loaded.model, loaded.adapter, rows[-1:], max_new_tokens=3, device="cpu")
        after = [compute_logps(logp_model, loaded.adapter, one) for one in (batch, text_only)]
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        ("qwen2_vl", "llava", "of another model: its '<image>' is token"),
        ("qwen2_vl", "qwen3_vl", "patches of 16 pixels, the model sees 14"),
        ("llava", "qwen2_vl", "of another model: its"),
    ],
    ids=["family", "patches", "other way"],
)
def test_the_processor_of_another_model_is_refused(
    checkpoint: Checkpoint, own: str, other: str, message: str
) -> None:
    from transformers import AutoProcessor

    from unidpo_mm.adapter import AdapterOptions
    from unidpo_mm.modeling.load import ModelSource, load_model

    source = ModelSource(name_or_path=str(checkpoint(own)))
    processor = AutoProcessor.from_pretrained(checkpoint(other))
    with pytest.raises(ModelError, match=message):
        load_model(source, AdapterOptions(), processor=processor)


def test_a_base_model_reads_a_raw_prompt_with_its_vision_marks(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("qwen2_vl"), prompt_style="raw")
    adapter: Any = loaded.adapter
    one = row("a", "What is it?", images=[make_image(1)])
    text = adapter.processor.tokenizer.decode(adapter.encode(one).prompt_ids)
    assert text.startswith("<|vision_start|><|image_pad|>")
    assert text.replace("<|image_pad|>", "") == "<|vision_start|><|vision_end|>What is it?"


def test_interleaved_images_keep_their_order(checkpoint: Checkpoint) -> None:
    adapter: Any = load_tiny(checkpoint("qwen2_vl")).adapter
    slot = ImageSlot()
    messages = [Message("user", ("First ", slot, " then ", slot))]
    small, large = make_image(1, (28, 28)), make_image(2, (56, 56))
    for images, grids in (
        ((small, large), [[1, 2, 2], [1, 4, 4]]),
        ((large, small), [[1, 4, 4], [1, 2, 2]]),
    ):
        group = adapter.encode(row("a", messages, images=images))
        assert group.image_extras["image_grid_thw"].tolist() == grids
