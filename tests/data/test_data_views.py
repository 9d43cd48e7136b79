"""Other images of rows: changed ones, those of another row, and those of a column."""

import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy
import pytest
from builders import make_image

from unidpo_mm.check.images import inspect_media
from unidpo_mm.config import SourceOptions
from unidpo_mm.config.image_preference import ImageTerm
from unidpo_mm.data.columns import RowColumns
from unidpo_mm.data.convert import write_rows
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.load import load_rows, rows_from_records
from unidpo_mm.data.row_codec import decode_row, encode_row
from unidpo_mm.data.row_table import table_of
from unidpo_mm.data.split import split_rows
from unidpo_mm.data.view_image import ViewImage
from unidpo_mm.data.views import view_problems, with_views
from unidpo_mm.errors import DataError
from unidpo_mm.records import FrameSampling, PreferenceRow

PAIR = {"prompt": "Which?", "chosen": "this", "rejected": "that"}
VIEWS: Any = ("crop", "mask", "noise")


def records(count: int = 3, **changed: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Which {number}?",
            "chosen": "this",
            "rejected": "that",
            "images": [make_image(number, (64, 48))],
            **changed,
        }
        for number in range(count)
    ]


def rows(count: int = 3, **changed: Any) -> list[PreferenceRow]:
    return list(rows_from_records(records(count, **changed)))


def pixels(image: Any) -> Any:
    return numpy.array(image.open()).astype(int)


@pytest.mark.parametrize("view", VIEWS)
def test_changed_images_have_the_size_of_the_image_and_are_always_the_same(view: Any) -> None:
    (row,) = with_views(rows(1), view, kept=0.2)
    (again,) = with_views(rows(1), view, kept=0.2)
    (other,) = row.other_images
    assert other.open().size == (64, 48)
    assert (pixels(other) == pixels(again.other_images[0])).all()
    assert other.key() == again.other_images[0].key()
    assert (pixels(other) != pixels(row.images[0])).any()
    assert len({other.key(), row.images[0].key()}) == 2
    assert other.describe().endswith(f"({view})")


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_changes_if_everything_remains(view: Any) -> None:
    (row,) = with_views(rows(1), view, kept=1.0)
    assert abs(pixels(row.other_images[0]) - pixels(row.images[0])).max() <= 1


def test_the_share_that_remains() -> None:
    """Distances from the image fall with it; a masked image has gray pixels elsewhere."""
    (row,) = rows(1)
    original = pixels(row.images[0])
    for view in VIEWS:
        distances = [
            abs(pixels(ViewImage(row.images[0], view, kept)) - original).mean()
            for kept in (0.1, 0.5, 0.95)
        ]
        assert distances == sorted(distances, reverse=True), view
    masked = pixels(ViewImage(row.images[0], "mask", 0.25))
    gray = (masked == 127).all(-1)
    assert gray.mean() == pytest.approx(0.75, abs=0.02)
    assert (masked[~gray] == original[~gray]).all()


def test_a_crop_is_a_part_of_the_image() -> None:
    image = make_image(0, (64, 48))
    view = ViewImage(MemoryImage(image, "here"), "crop", 0.25)
    small = numpy.array(view.open().resize((32, 24), resample=0)).astype(int)
    original = numpy.array(image).astype(int)
    distances = [
        abs(original[y : y + 24, x : x + 32] - small).mean() for y in range(25) for x in range(33)
    ]
    assert min(distances) < 0.25 * sorted(distances)[len(distances) // 2]


def test_shuffled_rows_borrow_the_images_of_the_row_before() -> None:
    two = {"images": [make_image(7), make_image(8)], "prompt": "Which two?"}
    mixed = [*records(3), {**records(1)[0], **two}]
    mixed += [{"prompt": "Text?", "chosen": "a", "rejected": "b"}]
    shuffled = with_views(rows_from_records(mixed), "shuffle", kept=1.0)
    keys = [[image.key() for image in row.images] for row in shuffled]
    borrowed = [[image.key() for image in row.other_images] for row in shuffled]
    assert borrowed == [keys[2], keys[0], keys[1], [], []]


def test_a_row_never_borrows_its_own_image() -> None:
    same = with_views(rows(3, images=[make_image(1)]), "shuffle", kept=1.0)
    assert not any(row.other_images for row in same)


def test_the_column_of_other_images() -> None:
    (row,) = rows(1, rejected_images=[make_image(9)])
    assert [image.key() for image in row.other_images] != [image.key() for image in row.images]
    assert with_views([row], "column", kept=1.0) == [row]
    assert not list(view_problems([row], ImageTerm(view="column")))


def test_other_images_survive_the_row_file() -> None:
    content = io.BytesIO()
    make_image(9).save(content, "png")
    (row,) = rows(1, images=[content.getvalue()], rejected_images=[content.getvalue()])
    assert decode_row(encode_row(row)) == row


def test_other_images_are_written_and_read_again(tmp_path: Path) -> None:
    before = rows(2, rejected_images=[make_image(9)])
    layouts: tuple[Literal["native", "trl"], ...] = ("native", "trl")
    for layout in layouts:
        write_rows(before, tmp_path / "rows.jsonl", layout)
        after = load_rows([SourceOptions(path=str(tmp_path / "rows.jsonl"))])
        for old, new in zip(before, after, strict=True):
            assert (pixels(old.other_images[0]) == pixels(new.other_images[0])).all()


def test_ms_swifts_rows_with_other_images() -> None:
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "this"}]
    record = {"messages": turns, "rejected_response": "that", "images": [make_image(1)]}
    (row,) = rows_from_records([{**record, "rejected_images": [make_image(2)]}])
    assert len(row.images) == len(row.other_images) == 1


def test_problems_of_other_images() -> None:
    with pytest.raises(DataError, match=r"'rejected_images': 2 other image\(s\) for 1 image"):
        rows(1, rejected_images=[make_image(1), make_image(2)])
    (problem,) = view_problems(rows(1), ImageTerm(view="column"))
    assert "no rejected_images" in problem.message
    assert not list(view_problems(rows(1), ImageTerm(view="crop")))
    with_column = rows(1, rejected_images=[make_image(9)])
    for term in (None, ImageTerm(view="crop")):
        (problem,) = view_problems(with_column, term)
        assert "only used with view: column" in problem.message


def test_digests_count_other_images() -> None:
    base = table_of(rows(2))
    digests = {base.digests().tobytes()}
    for view in (*VIEWS, "shuffle"):
        digests.add(table_of(with_views(rows(2), view, kept=0.2)).digests().tobytes())
    digests.add(table_of(with_views(rows(2), "crop", kept=0.3)).digests().tobytes())
    digests.add(table_of(rows(2, rejected_images=[make_image(9)])).digests().tobytes())
    assert len(digests) == 7


def test_a_common_other_image_joins_no_prompts() -> None:
    """Rows are split, grouped and counted by the images of their prompts."""
    same = rows(20, rejected_images=[make_image(9)])
    training, held_out = split_rows(same, 0.2, seed=0)
    assert len(held_out) == 4
    assert len(training) == 16
    assert len(set(table_of(same).media_keys)) == 20


def test_data_check_opens_other_images(tmp_path: Path) -> None:
    make_image(1).save(tmp_path / "p.png")
    path = tmp_path / "rows.jsonl"
    record = {**PAIR, "images": ["p.png"], "rejected_images": ["gone.png"]}
    path.write_text(json.dumps(record))
    loaded = load_rows([SourceOptions(path=str(path))])
    inspection = inspect_media(loaded, FrameSampling())
    assert [problem.message for problem in inspection.problems] == [
        f"the image '{tmp_path / 'gone.png'}' does not exist"
    ]
    assert len(inspection.keys_of(loaded[0])) == 1


@pytest.mark.parametrize("view", [*VIEWS, "shuffle"])
def test_columns_are_those_of_the_rows(view: Any) -> None:
    text = {"prompt": "Text?", "chosen": "a", "rejected": "b"}
    with_other = table_of(with_views(rows_from_records([*records(2), text]), view, kept=0.2))
    columns, expected = with_other.columns, RowColumns.of(list(with_other))
    assert columns.other_images.tolist() == expected.other_images.tolist() == [1, 1, 0]
