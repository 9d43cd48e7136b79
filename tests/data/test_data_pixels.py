"""Images as arrays and tensors, nested lists, file URLs, and entries that mean no image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_image
from PIL import Image

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import read_records
from unidpo_mm.records import PreferenceRow

PIXELS = np.asarray(make_image(3), dtype=np.uint8)
FLOATS = PIXELS.astype(np.float32) / 255
PAIR = {"prompt": "What?", "chosen": "yes", "rejected": "no"}


def parsed(images: Any, **fields: Any) -> PreferenceRow:
    loaded = read_records([{**PAIR, "images": images, **fields}])
    assert not loaded.problems, loaded.problems
    return loaded.rows[0]


@pytest.mark.parametrize(
    "value",
    [
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        PIXELS.astype(np.int64),
        FLOATS,
        FLOATS.astype(np.float64).transpose(2, 0, 1),
        torch.from_numpy(PIXELS.copy()),
        torch.from_numpy(PIXELS.copy()).permute(2, 0, 1),
        torch.from_numpy(FLOATS).permute(2, 0, 1).requires_grad_(),
        PIXELS[None],
        [[make_image(3)]],
        [[PIXELS]],
    ],
)
def test_arrays_and_tensors_are_the_image_that_they_hold(value: Any) -> None:
    (image,) = parsed(value).images
    assert np.array_equal(np.asarray(image.open()), PIXELS)


def test_arrays_of_four_dimensions_are_several_images() -> None:
    row = parsed(np.stack([PIXELS, PIXELS[::-1]]), prompt="<image> or <image>?")
    assert np.array_equal(np.asarray(row.images[1].open()), PIXELS[::-1])


def test_gray_and_transparent_arrays_are_images() -> None:
    gray = PIXELS[:, :, 0]
    for value in (gray, gray[:, :, None], torch.from_numpy(gray.copy())[None]):
        (image,) = parsed([value]).images
        assert np.array_equal(np.asarray(image.open())[:, :, 1], gray)
    (image,) = parsed([np.concatenate([PIXELS, PIXELS[:, :, :1]], axis=2)]).images
    assert np.array_equal(np.asarray(image.open()), PIXELS)
    (image,) = parsed([gray > 100]).images
    assert set(np.unique(np.asarray(image.open()))) <= {0, 255}


def test_pillow_decides_if_the_first_and_the_last_dimension_could_be_channels() -> None:
    assert parsed([np.zeros((3, 9, 3), np.uint8)]).images[0].open().size == (9, 3)
    assert parsed([torch.zeros(3, 9, 3)]).images[0].open().size == (3, 9)
    assert parsed([torch.zeros(3, 9, 3, dtype=torch.bfloat16)]).images[0].open().size == (3, 9)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (PIXELS.astype(np.float32), "from 0 to 255 as float32"),
        (FLOATS * 2 - 1, "as float32"),
        (np.full((4, 5, 3), np.nan), "from nan to nan"),
        (np.full((4, 5, 3), 300), "from 300 to 300 as int64"),
        (np.zeros((5, 6, 7)), "an array of 5 x 6 x 7 is not an image"),
        (np.zeros(4), "an array of 4 is not an image"),
        (np.zeros((0, 5, 3)), "an array of 0 x 5 x 3 is not an image"),
        (np.full((4, 5, 3), "a"), "an array of <U1"),
        ([[["nested.png"]]], "an image is list"),
        ({"file": 3}, "an image is dict"),
    ],
)
def test_what_is_not_an_image_is_refused(value: Any, result: str) -> None:
    (problem,) = read_records([{**PAIR, "images": [value]}]).problems
    assert problem.where.endswith("field 'images'")
    assert result in problem.message


NOTHING = [None, [None], "", [""], [[None]], [], {"bytes": None, "path": None},
           [{"bytes": None, "path": None}], [{"bytes": None, "path": ""}, None]]  # fmt: skip


@pytest.mark.parametrize("value", NOTHING)
def test_empty_entries_are_skipped(value: Any) -> None:
    row = parsed(value)
    assert row.images == ()
    assert row.domain == "text"
    assert len(parsed(value, image=make_image(1)).images) == 1
    part = {"type": "image", "image": value[0] if isinstance(value, list) and value else None}
    if not isinstance(part["image"], list):
        inside = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
        assert len(parsed([make_image(1)], prompt=inside).images) == 1


def test_a_placeholder_with_an_empty_entry_is_reported() -> None:
    (problem,) = read_records([{**PAIR, "prompt": "<image>?", "images": [None]}]).problems
    assert "0 image(s) for 1" in problem.message


def test_paths_and_file_urls_name_files(tmp_path: Path) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    make_image(1).save(folder / "a b.png")
    url = (folder / "a b.png").as_uri()
    assert "%20" in url
    for value in (folder / "a b.png", url, url.replace("file://", "file://localhost"),
                  url.replace("%20", " "), {"path": url}, {"url": url}):  # fmt: skip
        (image,) = parsed([value]).images
        assert image.open().size == make_image().size
    part = {"type": "image_url", "image_url": {"url": url}}
    inside = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
    (image,) = parsed(None, prompt=inside).images
    assert image.open().size == make_image().size


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("file://server/share/a.png", "names the host 'server'"),
        ("file://", "names the host"),
        ("file:///a%00b.png", "null byte"),
        ("file:///etc/a.png", "is outside of the directory"),
        ("file://[", "is not valid"),
    ],
)
def test_file_urls_that_lead_nowhere_are_refused(url: str, result: str, tmp_path: Path) -> None:
    source = SourceOptions(path="data", images=str(tmp_path))
    (problem,) = read_records([{**PAIR, "images": [url]}], source).problems
    assert result in problem.message


def test_image_modes_without_an_array_are_converted_by_pillow() -> None:
    assert parsed([Image.new("L", (4, 5), 7)]).images[0].open().mode == "RGB"
