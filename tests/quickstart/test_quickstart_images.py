"""Canvases hold what they say, in balance, and the same again for the same seed."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from unidpo_mm_eval.benchmarks.quickstart import KINDS
from unidpo_mm_quickstart.images import CANVAS, Emoji, draw_canvases, is_usable, kind_of


@pytest.fixture
def emoji(tmp_path: Path) -> list[Emoji]:
    found = []
    for row, kind in enumerate(KINDS):
        for column in range(3):
            file = tmp_path / f"{kind}-{column}.png"
            Image.new("RGBA", (72, 72), (20 * row, 80 * column, 128, 255)).save(file)
            found.append(Emoji(concept=f"{kind}-{column}", kind=kind, file=file))
    return found


def test_half_of_the_images_hold_two_different_kinds(emoji, tmp_path):
    canvases = draw_canvases(emoji, tmp_path / "out", 180, name="x", seed=0)
    assert Counter(len(c.kinds) for c in canvases) == {1: 90, 2: 90}
    assert all(len(set(c.kinds)) == len(c.kinds) for c in canvases)
    assert Counter(k for c in canvases for k in c.kinds) == dict.fromkeys(KINDS, 27)
    assert canvases[1].caption == " and ".join(canvases[1].kinds)


def test_concepts_of_a_kind_repeat_as_late_as_possible(emoji, tmp_path):
    canvases = draw_canvases(emoji, tmp_path / "out", 180, name="x", seed=0)
    shown = Counter(concept for c in canvases for concept in c.concepts)
    assert set(shown.values()) == {9}


def test_the_same_seed_draws_the_same_bytes_and_another_does_not(emoji, tmp_path):
    def drawn(folder: str, seed: int) -> list[bytes]:
        canvases = draw_canvases(emoji, tmp_path / folder, 20, name="x", seed=seed)
        return [c.file.read_bytes() for c in canvases]

    assert drawn("a", 0) == drawn("b", 0) != drawn("c", 1)


def test_one_emoji_lies_in_the_centre_and_two_on_the_diagonal(emoji, tmp_path):
    one, two = draw_canvases(emoji, tmp_path / "out", 2, name="x", seed=0)
    middle, last = CANVAS // 2, CANVAS - 1
    with Image.open(one.file) as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert image.getpixel((middle, middle)) != (255, 255, 255)
    with Image.open(two.file) as image:
        assert image.getpixel((0, 0)) != (255, 255, 255)
        assert image.getpixel((last, last)) != (255, 255, 255)
        assert image.getpixel((last, 0)) == (255, 255, 255)


def test_only_images_that_stand_for_their_kind_are_used():
    assert kind_of("animal-bird") == "animal"
    assert kind_of("keycap") is None
    assert is_usable("farmer", "person")
    assert not is_usable("female-farmer", "person")
    assert not is_usable("anchor", "vehicle")
