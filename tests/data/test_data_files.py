"""JSON, JSONL and Parquet files: same rows from each, every mistake with file, row and field."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import make_image

from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.data.load import ReadOptions, load_rows, read_sources
from unidpo_mm.errors import DataError

RECORDS: list[dict[str, Any]] = [
    {
        "id": "a",
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "yes"}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "no"}]}],
        "images": ["p.png"],
        "score_chosen": 4.0,
        "score_rejected": 1.0,
        "domain": None,
    },
    {
        "id": "b",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "4"}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "5"}]}],
        "images": [],
        "score_chosen": 5.0,
        "score_rejected": 0.0,
        "domain": "math",
    },
]


def write(folder: Path, kind: str, records: list[dict[str, Any]]) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        from datasets import Dataset

        Dataset.from_list(records).to_parquet(path)
    elif kind == "jsonl":
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        path.write_text("\n\n".join(lines), encoding="utf-8")  # blank lines are no rows
    else:
        path.write_text(json.dumps(records), encoding="utf-8")
    return path


def load(path: Path, **settings: Any) -> Any:
    scale = settings.pop("score_scale", None)
    scores = ScoreOptions(scale=settings.pop("scale", None))
    source = SourceOptions(path=str(path), scores=scores, **settings)
    return load_rows([source], ReadOptions(score_scale=scale))


def problems_of(*sources: SourceOptions) -> list[str]:
    with pytest.raises(DataError) as error:
        load_rows(list(sources))
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    make_image(1).save(tmp_path / "p.png")
    rows = load(write(tmp_path, kind, RECORDS))
    assert [row.id for row in rows] == ["a", "b"]
    assert [row.domain for row in rows] == ["multimodal", "math"]
    assert [row.source for row in rows] == ["rows", "rows"]
    assert [[r.text for r in row.responses] for row in rows] == [["yes", "no"], ["4", "5"]]
    assert rows[0].messages[0].slots("image") == 1
    assert rows[0].images[0].open().tobytes() == make_image(1).tobytes()
    assert rows[1].messages[0].parts == ("2 + 2?",)


def test_images_inside_parquet_are_read_as_datasets_writes_them(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, List, Value

    data = {
        "prompt": ["?"],
        "chosen": ["y"],
        "rejected": ["n"],
        "images": [[make_image(1), make_image(2)]],
    }
    features = Features({**{n: Value("string") for n in list(data)[:3]}, "images": List(Image())})
    Dataset.from_dict(data, features=features).to_parquet(tmp_path / "rows.parquet")
    (row,) = load(tmp_path / "rows.parquet")
    assert [image.open().tobytes() for image in row.images] == [
        make_image(n).tobytes() for n in (1, 2)
    ]


def test_rows_are_read_from_a_data_set_in_memory(tmp_path: Path) -> None:
    from datasets import Dataset

    from unidpo_mm.data.load import rows_from_records

    make_image(1).save(tmp_path / "p.png")
    rows = rows_from_records(Dataset.from_list(RECORDS), images=tmp_path)
    assert [row.id for row in rows] == ["a", "b"]
    assert [len(row.images) for row in rows] == [1, 0]


def test_a_folder_of_parquet_files_is_read_in_order(tmp_path: Path) -> None:
    for number, record in enumerate(RECORDS):
        path = write(tmp_path, "parquet", [{**record, "images": []} | {"prompt": str(number)}])
        path.rename(tmp_path / f"part-{number}.parquet")
    assert [row.id for row in load(tmp_path)] == ["a", "b"]


def test_a_source_has_a_name_a_domain_and_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    make_image(1).save(tmp_path / "images" / "p.png")
    rows = load(
        write(tmp_path, "jsonl", RECORDS),
        name="mine",
        domain="text",
        images=str(tmp_path / "images"),
    )
    assert {row.source for row in rows} == {"mine"}
    assert [row.domain for row in rows] == ["text", "math"]  # a row's own domain comes first
    assert rows[0].images[0].open().size == (40, 30)


def test_text_beyond_ascii_and_a_byte_order_mark_survive(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"prompt": "Größe? 大", "chosen": "é", "rejected": "x"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\n")
    assert load(path)[0].messages[0].text == "Größe? 大"


# ---- scales ----


@pytest.mark.parametrize(
    ("scale", "score_scale", "expected"),
    [
        (None, (0.0, 10.0), [4.0, 1.0]),  # observed ranges are never mapped
        ((0.0, 5.0), None, [4.0, 1.0]),
        ((0.0, 5.0), (0.0, 10.0), [8.0, 2.0]),
        ((1.0, 5.0), (0.0, 1.0), [0.75, 0.0]),
        ((0.0, 5.0), (-1.0, 1.0), [0.6, -0.6]),
    ],
)
def test_a_declared_scale_is_mapped_to_the_scale_of_the_run(
    tmp_path: Path, scale: Any, score_scale: Any, expected: list[float]
) -> None:
    path = write(tmp_path, "json", [{**RECORDS[0], "images": [], "prompt": "?"}])
    (row,) = load(path, scale=scale, score_scale=score_scale)
    assert [r.score for r in row.responses] == pytest.approx(expected)


def test_scores_of_ranked_responses_are_mapped_too(tmp_path: Path) -> None:
    record = {"prompt": "?", "responses": [{"text": "a", "score": 5}, {"text": "b", "score": 1}]}
    (row,) = load(write(tmp_path, "json", [record]), scale=(0.0, 5.0), score_scale=(0.0, 10.0))
    assert [r.score for r in row.responses] == [10.0, 2.0]


def test_scores_outside_their_declared_scale_are_refused_with_row_and_field(
    tmp_path: Path,
) -> None:
    records = [
        {"prompt": "?", "chosen": "y", "rejected": "n", "score_chosen": 7, "score_rejected": -1},
        {"prompt": "?", "responses": [{"text": "a", "score": 9}]},
    ]
    path = write(tmp_path, "jsonl", records)
    path.write_text(path.read_text().replace("\n\n", "\n"))
    result = problems_of(SourceOptions(path=str(path), scores=ScoreOptions(scale=(0.0, 5.0))))
    assert [text.split(":")[0] for text in result] == [
        f"{path} row 1, field 'score_chosen'",
        f"{path} row 1, field 'score_rejected'",
        f"{path} row 2, field 'responses[0].score'",
    ]
    assert "the score 7.0 is outside of the declared scale [0.0, 5.0]" in result[0]


# ---- mistakes ----


def test_all_mistakes_of_all_files_are_reported_together(tmp_path: Path) -> None:
    good = {"prompt": "?", "chosen": "y", "rejected": "n"}
    item = tmp_path / "one.jsonl"
    item.write_text(
        "\n".join([json.dumps(good), '{"prompt": "?",', json.dumps({**good, "chosen": ""})]),
        encoding="utf-8",
    )
    two = tmp_path / "two.json"
    two.write_text(json.dumps([good, {**good, "score_chosen": "high"}]), encoding="utf-8")
    result = problems_of(
        SourceOptions(path=str(item)),
        SourceOptions(path=str(two)),
        SourceOptions(path=str(tmp_path / "x.csv")),
    )
    assert result[0].startswith(f"{item} row 2: the line is not valid JSON (")
    assert result[1].startswith(f"{item} row 3, field 'chosen': the response is empty.")
    assert result[2].startswith(f"{two} row 2, field 'score_chosen': found 'high'.")
    assert "x.csv" in result[3]


def test_invalid_utf8_is_reported_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "?", "chosen": "y", "rejected": "n"}\n{"prompt": "\xff"}\n')
    (result,) = problems_of(SourceOptions(path=str(path)))
    assert result.startswith(f"{path} row 2: the line is not valid UTF-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{}", "the file contains dict, not a list. Write a list of objects"),
        ("a.json", b"[1,", "the file is not valid JSON"),
        ("a.json", b'["\xff"]', "the file is not valid UTF-8"),
        ("a.json", b"[]", "the file contains no rows"),
        ("a.jsonl", b"\n", "the file contains no rows"),
        ("a.parquet", b"PAR1", "not a valid Parquet file"),
        ("a.csv", b"a,b", "'.csv' files are not supported"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (result,) = problems_of(SourceOptions(path=str(tmp_path / name)))
    assert result.startswith(str(tmp_path / name))
    assert message in result


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    (result,) = problems_of(SourceOptions(path=str(tmp_path / "nothing.jsonl")))
    assert result.startswith(f"{tmp_path / 'nothing.jsonl'}: neither a local file nor a data set")


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    (result,) = problems_of(SourceOptions(path=str(tmp_path)))
    assert "the directory contains no Parquet, JSONL, JSON or Arrow file" in result


def test_the_same_id_in_two_files_is_refused(tmp_path: Path) -> None:
    record = {"id": "same", "prompt": "?", "chosen": "y", "rejected": "n"}
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(json.dumps([record]), encoding="utf-8")
    (result,) = problems_of(
        SourceOptions(path=str(tmp_path / "one.json")),
        SourceOptions(path=str(tmp_path / "two.json")),
    )
    assert f"{tmp_path / 'two.json'} row 1, field 'id': duplicate id 'same', also used by" in result
    assert "one.json row 1" in result


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_split_of_a_file_is_refused_since_a_file_has_none(tmp_path: Path, split: str) -> None:
    """Otherwise a migrated recipe would evaluate on its training rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}')
    loaded = read_sources([SourceOptions(path=str(path), split=split)])
    assert [problem.message for problem in loaded.problems] == [
        f"split '{split}' was requested, but a file has no splits"
    ]
    loaded = read_sources([SourceOptions(path=str(path), split="train")])
    assert len(loaded.rows) == 1
    assert not loaded.problems
