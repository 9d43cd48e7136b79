"""Canvases show the objects that they list, are balanced, and depend on the seed only."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from unidpo_mm_quickstart.images import (
    EMOJI,
    KINDS,
    WIDTH,
    Emoji,
    draw_canvases,
    is_usable,
    kind_of,
)


@pytest.fixture
def emoji(tmp_path: Path) -> list[Emoji]:
    items = []
    for row, kind in enumerate(KINDS):
        for column in range(3):
            file = tmp_path / f"{kind}-{column}.png"
            Image.new("RGBA", (72, 72), (20 * row, 80 * column, 128, 255)).save(file)
            items.append(Emoji(concept=f"{kind}-{column}", kind=kind, file=file))
    return items


def test_half_of_the_images_show_two_different_kinds(emoji, tmp_path):
    canvases = draw_canvases(emoji, tmp_path / "out", 120, name="x", seed=0)
    assert Counter(len(c.kinds) for c in canvases) == {1: 60, 2: 60}
    assert all(len(set(c.kinds)) == len(c.kinds) for c in canvases)
    assert Counter(k for c in canvases for k in c.kinds) == dict.fromkeys(KINDS, 60)
    assert canvases[1].caption == " and ".join(canvases[1].kinds)


def test_concepts_of_a_kind_repeat_as_late_as_possible(emoji, tmp_path):
    canvases = draw_canvases(emoji, tmp_path / "out", 120, name="x", seed=0)
    counts = Counter(concept for c in canvases for concept in c.concepts)
    assert set(counts.values()) == {20}


def test_the_images_depend_on_the_seed_only(emoji, tmp_path):
    def drawn(folder: str, seed: int) -> list[bytes]:
        canvases = draw_canvases(emoji, tmp_path / folder, 20, name="x", seed=seed)
        return [c.file.read_bytes() for c in canvases]

    assert drawn("a", 0) == drawn("b", 0) != drawn("c", 1)


def test_a_single_emoji_is_in_the_center_and_two_are_side_by_side(emoji, tmp_path):
    single, double = draw_canvases(emoji, tmp_path / "out", 2, name="x", seed=0)
    white, middle = (255, 255, 255), EMOJI // 2
    with Image.open(single.file) as image:
        assert image.size == (WIDTH, EMOJI)
        assert [image.getpixel((x, middle)) == white for x in (0, WIDTH // 2, WIDTH - 1)] == [
            True,
            False,
            True,
        ]
    with Image.open(double.file) as image:
        left, right = image.getpixel((0, middle)), image.getpixel((WIDTH - 1, middle))
        assert white not in (left, right)
        assert left != right


def test_only_emoji_that_depict_their_kind_are_used():
    assert kind_of("face-smiling") == "face"
    assert kind_of("plant-flower") is None
    assert is_usable("farmer", "person")
    assert not is_usable("female-farmer", "person")
    assert not is_usable("shell", "face")
