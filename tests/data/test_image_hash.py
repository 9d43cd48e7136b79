"""Images that look the same are found exactly, and plain or different ones are not."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.planted_images import encoded, photo

from unidpo_mm.data import image_hash
from unidpo_mm.data.image_hash import (
    MAX_DISTANCE,
    STEPS,
    ImageTable,
    difference_hashes,
    near_pairs,
    thumbnail,
)
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.key_table import KeyTable, collect

SEEDS = range(12)


def pixels_of(*images: object) -> numpy.ndarray:
    return numpy.stack([thumbnail(MemoryImage(image, "row 1")) for image in images])


def near_by_brute_force(left: numpy.ndarray, right: numpy.ndarray) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, first in enumerate(left.tolist())
        for j, second in enumerate(right.tolist())
        if (first ^ second).bit_count() <= MAX_DISTANCE
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    flips=st.lists(st.lists(st.integers(0, 63), max_size=8), max_size=30),
)
def test_the_search_by_bands_equals_brute_force(seed, flips):
    generator = numpy.random.default_rng(seed)
    right = generator.integers(0, 2**64, size=40, dtype=numpy.uint64)
    near = [int(generator.choice(right)) ^ sum(1 << bit for bit in set(bits)) for bits in flips]
    far = generator.integers(0, 2**64, size=20, dtype=numpy.uint64)
    left = numpy.array([*near, *far.tolist()], dtype=numpy.uint64)
    pairs = list(zip(*(column.tolist() for column in near_pairs(left, right)), strict=True))
    assert set(pairs) == near_by_brute_force(left, right)
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("part", [1, 7, 1 << 20])
def test_the_size_of_parts_does_not_change_the_pairs(part, monkeypatch):
    monkeypatch.setattr("unidpo_mm.data.key_table.PAIRS", part)
    generator = numpy.random.default_rng(0)
    queries, keys = (generator.integers(0, 9, size=n, dtype=numpy.uint64) for n in (50, 30))
    left, right = collect(KeyTable(keys).pairs(queries))
    expected = numpy.argwhere(queries[:, None] == keys[None])
    assert sorted(map(list, zip(left.tolist(), right.tolist(), strict=True))) == expected.tolist()


@pytest.mark.parametrize(
    "copied",
    [
        lambda image: encoded(image, "JPEG", quality=90),
        lambda image: encoded(image, "JPEG", quality=60),
        lambda image: encoded(image, "WEBP", quality=80),
        lambda image: image.resize((160, 120), Image.Resampling.LANCZOS),
        lambda image: image.resize((640, 480), Image.Resampling.BICUBIC),
        lambda image: image.convert("RGBA"),
    ],
    ids=["jpeg 90", "jpeg 60", "webp", "smaller", "larger", "with transparency"],
)
def test_copies_look_the_same_and_other_images_do_not(copied):
    images = [photo(seed) for seed in SEEDS]
    table = ImageTable(pixels_of(*(encoded(image) for image in images)))
    left, right = table.pairs(pixels_of(*map(copied, images)))
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == {(n, n) for n in SEEDS}


def test_plain_images_say_nothing():
    noise = numpy.random.default_rng(0).integers(199, 202, size=(2, 90, 120, 3), dtype=numpy.uint8)
    plain = [
        Image.new("RGB", (100, 80), "white"),
        Image.new("RGB", (60, 90), "white"),
        *map(Image.fromarray, noise),
    ]
    pixels = pixels_of(*plain)
    assert not any(difference_hashes(pixels, step)[1].any() for step in STEPS)
    assert ImageTable(pixels).pairs(pixels)[0].size == 0


def test_equal_hashes_with_other_pixels_do_not_look_the_same():
    first = Image.new("RGB", (90, 80))
    first.putdata([(2 * x, 2 * x, 2 * x) for _ in range(80) for x in range(90)])
    second = first.point(lambda value: value // 2 + 60)
    pixels = pixels_of(first, second)
    hashes, informative = difference_hashes(pixels, STEPS[0])
    assert hashes[0] == hashes[1]
    assert informative.all()
    left, right = ImageTable(pixels[:1]).pairs(pixels)
    assert (set(left.tolist()), set(right.tolist())) == ({0}, {0})


def test_an_image_that_cannot_be_opened_has_no_thumbnail():
    assert thumbnail(MemoryImage(b"not an image", "row 1")) is None


def test_nothing_is_changed():
    pixels = pixels_of(*(photo(seed) for seed in SEEDS))
    before = pixels.copy()
    ImageTable(pixels).pairs(pixels)
    assert (pixels == before).all()


def test_no_thumbnails_are_no_problem():
    empty = numpy.empty((0, *image_hash.THUMBNAIL), dtype=numpy.uint8)
    pixels = pixels_of(photo(0))
    assert ImageTable(empty).pairs(pixels)[0].size == 0
    assert ImageTable(pixels).pairs(empty)[0].size == 0
