"""Pictures are opened upright and in RGB, or refused by name; equal pictures have equal keys."""

import io
from pathlib import Path
from typing import Any

import pytest
from builders import load_tiny, picture, row
from PIL import Image

from unidpo_mm.data.images import FileImage, MemoryImage
from unidpo_mm.data.preflight import preflight
from unidpo_mm.errors import DataError
from unidpo_mm.records import ImageSlot, Message, Pair, PreferenceRow, Response


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_mode_is_opened_as_rgb(mode: str) -> None:
    image = picture(1).convert(mode)
    found = MemoryImage(image, "here").open()
    assert (found.mode, found.size) == ("RGB", image.size)


def test_a_turned_photograph_is_opened_upright(tmp_path: Path) -> None:
    image = picture(1, (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "p.jpg", exif=exif)
    assert FileImage(tmp_path / "p.jpg", "here").open().size == (20, 40)


WHERE = "rows.jsonl row 3, field 'images'"
JPEG = encoded(picture(1, (200, 200)), "JPEG")
PNG = encoded(picture(1))


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", PNG[: len(PNG) // 2], PNG[:20], JPEG[: len(JPEG) // 2], JPEG[:30]],
    ids=["empty", "text", "half a PNG", "a PNG's head", "half a JPEG", "a JPEG's head"],
)
def test_a_broken_picture_is_refused_with_row_field_and_name(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "p.png").write_bytes(content)
    for image, name in (
        (FileImage(tmp_path / "p.png", WHERE), str(tmp_path / "p.png")),
        (MemoryImage(content, WHERE), "in memory"),
    ):
        with pytest.raises(DataError) as error:
            image.open()
        (problem,) = error.value.problems
        assert problem.where == WHERE
        assert name in problem.found
        assert "cannot be read" in problem.found


def test_a_lazily_opened_picture_that_is_broken_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    lazy = Image.open(tmp_path / "p.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        MemoryImage(lazy, WHERE).open()


def test_a_missing_picture_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3, field 'images': the picture .* does not exist"):
        FileImage(tmp_path / "p.png", WHERE).open()


def test_keys_are_equal_for_equal_pictures_and_for_no_others(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG)
    (tmp_path / "c.png").write_bytes(encoded(picture(2)))
    keys = [FileImage(tmp_path / f"{n}.png", "").key() for n in "abc"]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] == MemoryImage(PNG, "").key()
    in_memory = [MemoryImage(picture(n), "").key() for n in (1, 1, 2)]
    assert in_memory[0] == in_memory[1] != in_memory[2]
    flat, tall = Image.new("L", (8, 2)), Image.new("L", (2, 8))
    assert MemoryImage(flat, "").key() != MemoryImage(tall, "").key()


# ---- reading everything once before training ----


def row_with(image: Any, name: str) -> PreferenceRow:
    return PreferenceRow(
        id=name,
        domain="multimodal",
        source="s",
        where=f"rows row {name}",
        messages=(Message("user", (ImageSlot(), "What?")),),
        images=(image,),
        responses=(Response("a", 1.0), Response("b", 0.0)),
        pairs=(Pair(0, 1),),
    )


def test_preflight_finds_every_bad_picture_and_prompt(checkpoint: Any, tmp_path: Path) -> None:
    adapter = load_tiny(checkpoint("llava"), max_length=60).adapter
    rows = [
        row_with(MemoryImage(picture(1), "rows row 1"), "1"),
        row_with(FileImage(tmp_path / "missing.png", "rows row 2"), "2"),
        row("3", "long " * 60),
        row_with(MemoryImage(b"broken", "rows row 4"), "4"),
    ]
    with pytest.raises(DataError) as error:
        preflight(rows, adapter)
    places = [problem.where.split(",")[0] for problem in error.value.problems]
    assert places == ["rows row 2", "data.jsonl row 3", "rows row 4"]


def test_preflight_counts_what_a_run_will_see(checkpoint: Any) -> None:
    adapter = load_tiny(checkpoint("llava"), max_length=40).adapter
    rows = [
        row("a", "What?", ("x", "y"), images=[picture(1)]),
        row("b", "What?", ("x", "z"), images=[picture(1)]),
        row("c", "What?", ("x", "z"), images=[picture(2)]),
        row("d", "What?", ("x " * 30, "y", "z"), (3.0, 1.0, 1.0), pairs=[Pair(0, 1), Pair(0, 2)]),
    ]
    found = preflight(rows, adapter)
    assert (found.rows, found.pairs, found.responses, found.images) == (4, 5, 9, 3)
    assert found.domains == {"multimodal": 3, "text": 1}
    assert found.prompts == 3  # two rows share picture and question
    assert (found.longest, found.cut_responses) == (40, 1)


def test_preflight_keeps_the_first_problems_and_counts_the_rest(checkpoint: Any) -> None:
    adapter = load_tiny(checkpoint("llama"), max_length=5).adapter
    with pytest.raises(DataError) as error:
        preflight([row(str(n)) for n in range(230)], adapter)
    assert len(error.value.problems) == 201
    assert "30 more problems" in str(error.value.problems[-1])
