"""Limits of image sizes, in the unit of each model type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import EVERY_IMAGE_TYPE, load_tiny, make_image, row

from unidpo_mm.errors import ModelError

Checkpoint = Callable[[str], Path]

LARGE = (300, 200)
LIMITS = {
    "internvl": (1, 6),
    "aya_vision": (1, 6),
    "cohere2_vision": (1, 6),
    "ovis2": (1, 6),
    "minicpmv4_6": (1, 6),
    "lfm2_vl": (2, 6),
    "gemma4": (70, 140),
    "mistral3": (28, 84),
    "idefics2": (28, 56),
    "idefics3": (32, 96),
    "smolvlm": (32, 96),
    "kimi_k25": (16, 64),
    "video_llama_3": (4 * 28**2, 16 * 28**2),
    "qwen2_5_omni_thinker": (4 * 28**2, 16 * 28**2),
    "qwen2_vl": (4 * 28**2, 16 * 28**2),
    "qwen3_5": (4 * 32**2, 16 * 32**2),
    "glm4v": (4 * 28**2, 16 * 28**2),
    "glm46v": (4 * 28**2, 16 * 28**2),
}
"""Model type -> a small and a large limit in its unit."""
FAST = ("internvl", "mistral3", "kimi_k25", "gemma4", "glm4v")
"""Types that differ in their unit; the tests of the others are slow."""
SAME_TOKENS = ("idefics2",)
"""A perceiver gives each image the same number of tokens, whatever its size."""


def image_tensors(adapter: Any, size: tuple[int, int] = LARGE) -> tuple[int, int]:
    """Return the numbers of image tokens and of pixels that the tower sees."""
    images = adapter.encode(row("a", "What is it?", images=[make_image(1, size)])).images
    return images.tokens, images.inputs["pixel_values"].numel()


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LIMITS],
)
def test_a_smaller_limit_makes_images_smaller(checkpoint: Checkpoint, model_type: str) -> None:
    folder = checkpoint(model_type)
    small, large = (
        image_tensors(load_tiny(folder, image_max_size=limit).adapter)
        for limit in LIMITS[model_type]
    )
    assert small[1] < large[1]
    assert small[0] < large[0] or model_type in SAME_TOKENS


@pytest.mark.parametrize("model_type", ["qwen2_vl", "video_llama_3", "glm4v"])
def test_a_limit_in_pixels_holds_for_the_image(checkpoint: Checkpoint, model_type: str) -> None:
    limit = 16 * 28**2
    for size in (limit, f"{limit} pixels"):
        adapter: Any = load_tiny(checkpoint(model_type), image_max_size=size).adapter
        group = adapter.encode(row("a", "What is it?", images=[make_image(1, LARGE)]))
        patches = int(group.images.inputs["image_grid_thw"].prod())
        assert 0.5 * limit < patches * 14**2 <= limit


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in EVERY_IMAGE_TYPE
    ],
)
def test_shrinking_is_allowed_where_smaller_images_have_fewer_tokens(
    checkpoint: Checkpoint, model_type: str
) -> None:
    adapter: Any = load_tiny(checkpoint(model_type)).adapter
    small, large = (
        adapter.encode(row("a", "What?", images=[make_image(1, size)]))
        for size in ((30, 20), LARGE)
    )
    if not adapter.traits.resizable:
        with pytest.raises(ModelError, match=r"data.length_policy: smaller images have the same n"):
            load_tiny(checkpoint(model_type), length_policy="shrink_image")
        return
    assert small.images.tokens < large.images.tokens
    longest = len(small.prompt_ids) + max(map(len, small.response_ids))
    limits = {"length_policy": "shrink_image", "max_length": longest}
    shrinking: Any = load_tiny(checkpoint(model_type), **limits).adapter
    group = shrinking.encode(row("a", "What?", images=[make_image(1, LARGE)]))
    assert group.images.shrunk == 1
    assert len(group.prompt_ids) + max(map(len, group.response_ids)) <= longest


@pytest.mark.parametrize("model_type", ["llava", "gemma3"])
def test_a_fixed_size_has_no_limit(checkpoint: Checkpoint, model_type: str) -> None:
    with pytest.raises(ModelError, match=r"model.image_max_size: it is 4, and .*have a fixed size"):
        load_tiny(checkpoint(model_type), image_max_size=4)


@pytest.mark.parametrize(
    ("model_type", "size", "unit"),
    [
        ("internvl", "9999 pixels", "tiles, 1 to 128"),
        ("internvl", "4 pixels", "tiles, 1 to 128"),
        ("internvl", 589824, "tiles, 1 to 128"),
        ("mistral3", 589824, "pixels of its longer side, 8 to 16384"),
        ("kimi_k25", 589824, "patches, 1 to 131072"),
        ("gemma4", "280 tiles", "image tokens, 1 to 65536"),
        ("qwen2_vl", 12, "pixels, 256 to 1000000000"),
        ("qwen2_vl", "768 side", "pixels, 256 to 1000000000"),
    ],
)
def test_a_limit_in_another_unit_is_refused_with_that_of_the_type(
    checkpoint: Checkpoint, model_type: str, size: Any, unit: str
) -> None:
    with pytest.raises(ModelError) as error:
        load_tiny(checkpoint(model_type), image_max_size=size)
    assert str(error.value) == (
        f"model.image_max_size: it is {size}, and the images of the model type '{model_type}' are "
        f"limited by a number of {unit}. Use a number of {unit.partition(',')[0]}, or remove it."
    )


def test_a_limit_states_its_unit(checkpoint: Checkpoint) -> None:
    adapter: Any = load_tiny(checkpoint("internvl"), image_max_size="2 tiles").adapter
    assert adapter.processor.image_processor.max_patches == 2


def test_only_types_that_count_pixels_have_a_minimum(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"model.image_min_size: the images .* have no minimum"):
        load_tiny(checkpoint("internvl"), image_min_size=2)


def test_a_limit_that_the_processor_refuses_is_reported(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"model.image_max_size: .*refuses the limit 71 \(.*1120"):
        load_tiny(checkpoint("gemma4"), image_max_size=71)


def test_a_limit_is_saved_with_the_processor(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    adapter: Any = load_tiny(checkpoint("internvl"), image_max_size=2).adapter
    adapter.processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).image_processor.max_patches == 2
