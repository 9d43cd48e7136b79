"""Images are opened upright and in RGB, or refused by name; equal images have equal keys."""

import base64
import dataclasses
import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from builders import load_tiny, make_image, preflight, row
from PIL import Image

from unidpo_mm.data.images import (
    FileImage,
    ImageRules,
    MemoryImage,
    image_refs,
)
from unidpo_mm.data.invalid_value import InvalidValue
from unidpo_mm.errors import DataError
from unidpo_mm.records import MediaSlot, Message, Pair, PreferenceRow, Response


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_mode_is_opened_as_rgb(mode: str) -> None:
    image = make_image(1).convert(mode)
    result = MemoryImage(image, "here").open()
    assert (result.mode, result.size) == ("RGB", image.size)


def test_a_rotated_photograph_is_opened_upright(tmp_path: Path) -> None:
    image = make_image(1, (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "p.jpg", exif=exif)
    assert FileImage(tmp_path / "p.jpg", "here").open().size == (20, 40)


WHERE = "rows.jsonl row 3, field 'images'"
JPEG = encoded(make_image(1, (200, 200)), "JPEG")
PNG = encoded(make_image(1))


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", PNG[: len(PNG) // 2], PNG[:20], JPEG[: len(JPEG) // 2], JPEG[:30]],
    ids=["empty", "text", "half a PNG", "a PNG's head", "half a JPEG", "a JPEG's head"],
)
def test_a_broken_image_is_refused_with_row_field_and_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    for image, name in (
        (FileImage(tmp_path / "p.png", WHERE), str(tmp_path / "p.png")),
        (MemoryImage(content, WHERE), "in memory"),
    ):
        with pytest.raises(DataError) as error:
            image.open()
        (problem,) = error.value.problems
        assert problem.where == WHERE
        assert name in problem.message
        assert "cannot be read" in problem.message


def test_a_lazily_opened_image_that_is_broken_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    lazy = Image.open(tmp_path / "p.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        MemoryImage(lazy, WHERE).open()


def test_a_missing_image_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3, field 'images': the image .* does not exist"):
        FileImage(tmp_path / "p.png", WHERE).open()


def test_keys_are_equal_only_for_equal_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG)
    (tmp_path / "c.png").write_bytes(encoded(make_image(2)))
    keys = [FileImage(tmp_path / f"{n}.png", "").key() for n in "abc"]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] == MemoryImage(PNG, "").key()
    in_memory = [MemoryImage(make_image(n), "").key() for n in (1, 1, 2)]
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
        messages=(Message("user", (MediaSlot("image"), "What?")),),
        images=(image,),
        responses=(Response("a", 1.0), Response("b", 0.0)),
        pairs=(Pair(0, 1),),
    )


def test_preflight_finds_every_bad_image_and_prompt(checkpoint: Any, tmp_path: Path) -> None:
    adapter = load_tiny(checkpoint("llava"), max_length=60).adapter
    rows = [
        row_with(MemoryImage(make_image(1), "rows row 1"), "1"),
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
        row("a", "What?", ("x", "y"), images=[make_image(1)]),
        row("b", "What?", ("x", "z"), images=[make_image(1)]),
        row("c", "What?", ("x", "z"), images=[make_image(2)]),
        row("d", "What?", ("x " * 30, "y", "z"), (3.0, 1.0, 1.0), pairs=[Pair(0, 1), Pair(0, 2)]),
    ]
    result = preflight(rows, adapter)
    assert (result.rows, result.pairs, result.responses, result.images) == (4, 5, 9, 3)
    assert result.domains == {"multimodal": 3, "text": 1}
    assert result.prompts == 3  # two rows share image and question
    assert (result.longest, result.cut_responses) == (40, 1)


def test_preflight_keeps_all_problems_and_prints_one_line(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = load_tiny(checkpoint("llama"), max_length=5).adapter
    rows = [row(str(n)) for n in range(230)]
    with pytest.raises(DataError) as error:
        preflight(rows, adapter)
    assert len(error.value.problems) == 230
    assert len(str(error.value).splitlines()) == 2
    monkeypatch.setattr("unidpo_mm.data.preflight.MAX_PROBLEMS", 200)
    with pytest.raises(DataError) as error:
        preflight(rows, adapter)
    assert len(error.value.problems) == 201
    assert "30 more problems" in str(error.value.problems[-1])


def test_rows_with_unreadable_images_are_skipped_up_to_a_share(
    checkpoint: Any, tmp_path: Path
) -> None:
    adapter = load_tiny(checkpoint("llava")).adapter
    good = [row_with(MemoryImage(make_image(n), f"rows row {n}"), str(n)) for n in range(3)]
    rows = [*good, row_with(FileImage(tmp_path / "missing.png", "rows row 4"), "4")]
    result = preflight(rows, adapter, max_skipped_fraction=0.25)
    assert (result.rows, result.skipped) == (3, {3})
    assert [problem.where for problem in result.unreadable] == ["rows row 4"]
    with pytest.raises(DataError, match="does not exist"):
        preflight(rows, adapter, max_skipped_fraction=0.2)


# ---- what may be opened ----


def sixteen_bits(kind: str) -> Image.Image:
    values = [int(65535 * n / 63) for n in range(64)]
    image = Image.new(kind, (8, 8))
    image.putdata(values)
    return image


@pytest.mark.parametrize(("kind", "name"), [("I;16", "p.png"), ("I", "p.tiff")])
def test_sixteen_bits_keep_their_shades(tmp_path: Path, kind: str, name: str) -> None:
    """Pillow alone would clip them: all but the darkest would be white."""
    sixteen_bits(kind).save(tmp_path / name)
    result = FileImage(tmp_path / name, WHERE).open()
    assert result.mode == "RGB"
    shades = list(result.tobytes()[::3])
    assert shades == pytest.approx([255 * n / 63 for n in range(64)], abs=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first, second = make_image(1), make_image(2)
    content = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
    result = MemoryImage(content, WHERE).open()
    colours = zip(result.tobytes(), first.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in colours) < 60  # a GIF has a palette of its own
    assert result.size == first.size


def test_a_palette_with_transparency_is_read_by_its_colours() -> None:
    image = make_image(1).quantize(16)
    content = encoded(image, "PNG", transparency=0)
    assert MemoryImage(content, WHERE).open().size == image.size


def test_base64_with_and_without_its_header_is_the_image(tmp_path: Path) -> None:
    text = base64.b64encode(PNG).decode()
    for written in (text, f"data:image/png;base64,{text}"):
        (result,) = image_refs(written, ImageRules(folder=tmp_path), WHERE)
        assert result.open().tobytes() == make_image(1).tobytes()


def test_a_link_inside_the_folder_may_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "p.png").write_bytes(PNG)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "images").symlink_to(tmp_path / "far")
    rules = ImageRules(folder=tmp_path / "near", explicit=True)
    (result,) = image_refs("images/p.png", rules, WHERE)
    assert result.open().size == (40, 30)


@pytest.mark.parametrize("written", ["../p.png", "a/../../p.png", "{folder}/p.png"])
def test_paths_may_leave_their_directory_if_allowed(tmp_path: Path, written: str) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    written = written.format(folder=tmp_path)
    inside = ImageRules(folder=tmp_path / "inside", explicit=True)
    with pytest.raises(InvalidValue, match="is outside of the directory"):
        image_refs(written, inside, WHERE)
    allowed = dataclasses.replace(inside, allow_outside=True)
    assert image_refs(written, allowed, WHERE)[0].open().size == (40, 30)


def test_image_urls_are_downloaded_once_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200 if self.path == "/p.png" else 404)
            self.end_headers()
            self.wfile.write(PNG)

        def log_message(self, *args: Any) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    rules = ImageRules(download=True, download_private=True)
    for _ in range(2):
        (result,) = image_refs(f"{address}/p.png", rules, WHERE)
        assert result.open().tobytes() == make_image(1).tobytes()
    assert requests == ["/p.png"]
    (gone,) = image_refs(f"{address}/gone.png", rules, WHERE)
    with pytest.raises(DataError, match="cannot be downloaded"):
        gone.open()
    server.shutdown()


@pytest.mark.parametrize("model_type", ["llava", "llava_onevision", "qwen2_vl"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_the_model_gets_the_pixels_that_its_processor_computes_from_the_file(
    checkpoint: Any, tmp_path: Path, model_type: str, mode: str
) -> None:
    make_image(1, (56, 42)).convert(mode).save(tmp_path / "p.png")
    loaded = load_tiny(checkpoint(model_type))
    group = loaded.adapter.encode(row_with(FileImage(tmp_path / "p.png", WHERE), "1"))
    processor = loaded.adapter.processor
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    row_key = processor(text=[text], images=[[Image.open(tmp_path / "p.png")]], return_tensors="pt")
    assert row_key["pixel_values"].equal(group.images.inputs["pixel_values"])
