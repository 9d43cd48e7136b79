"""Many rows are written to disk; everything about them is the same as for rows in memory."""

import json
import pickle
import random
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from support.commands import run_command

from unidpo_mm.cache.row_files import row_folder
from unidpo_mm.check.run import check_data
from unidpo_mm.config import SourceOptions
from unidpo_mm.config.python import UniDPOConfig
from unidpo_mm.data import content, load, row_file, row_store
from unidpo_mm.data.digest import DataDigest, data_digest, difference
from unidpo_mm.data.groups import group_by_prompt, train_on_responses, weight_by_group
from unidpo_mm.data.images import FileImage, MemoryImage, UrlImage
from unidpo_mm.data.load import DataFiles, Loaded, read_records, read_sources
from unidpo_mm.data.row_codec import NotStorable, decode_row, encode_row
from unidpo_mm.data.row_table import RowTable, columns_of, concatenated
from unidpo_mm.data.split import split_rows
from unidpo_mm.data.videos import FileVideo, FramesVideo, MemoryVideo, UrlVideo
from unidpo_mm.records import (
    MediaSlot,
    Message,
    Pair,
    PreferenceRow,
    Response,
)
from unidpo_mm.training.configured_loss import ConfiguredLoss, configured_loss

NUMBERS = ("images", "videos", "responses", "pairs", "units")
LISTS = ("chosen", "rejected", "weights")
ROWS = 60


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "BATCH", 7)
    monkeypatch.setattr(content, "SETTLED_NS", 0)


@pytest.fixture
def source(tmp_path: Path) -> SourceOptions:
    """Return a file of rows that share prompts and images."""
    for number in range(5):
        make_image(number).save(tmp_path / f"i{number}.png")
    draw = random.Random(0)
    lines = []
    for number in range(ROWS):
        record: dict[str, Any] = {
            "prompt": f"q{number % 11} é",
            "chosen": f"good {number % 17}",
            "rejected": f"bad {number}",
            "score_chosen": draw.choice([4, 4.0, 5.5]),
            "score_rejected": 1,
            "weight": draw.choice([0, 1, 2.5]),
            "unused": 1,
        }
        if number % 3 == 0:
            prompt = f"<image>q{number % 7}"
            record |= {"prompt": prompt, "images": [f"i{number % 5}.png"], "domain": "math"}
        lines.append(json.dumps(record) + "\n")
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    return SourceOptions(path=str(tmp_path / "rows.jsonl"))


def on_disk(source: SourceOptions, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    with monkeypatch.context() as patch:
        patch.setattr(row_store, "MAX_ROWS", 10)
        loaded = read_sources([source])
    assert isinstance(loaded.rows, RowTable)
    return loaded


def assert_same(rows: Sequence[PreferenceRow], expected: Sequence[PreferenceRow]) -> None:
    """Check that rows, their columns and their digests are the same as those of a list."""
    assert list(map(repr, rows)) == list(map(repr, expected))  # also what is not compared
    columns, expected_columns = columns_of(rows), columns_of(list(expected))
    assert columns.sources == expected_columns.sources
    for name in NUMBERS:
        assert getattr(columns, name).tolist() == getattr(expected_columns, name).tolist(), name
    for name in LISTS:
        values, others = getattr(columns, name), getattr(expected_columns, name)
        assert list(map(list, values)) == list(map(list, others)), name
    assert data_digest(rows).to_json() == data_digest(list(expected)).to_json()


def test_rows_on_disk_are_the_same(source: SourceOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = read_sources([source])
    assert isinstance(memory.rows, list)
    for _ in range(2):  # the second time, the rows are not read again
        disk = on_disk(source, monkeypatch)
        assert (disk.reports, disk.problems) == (memory.reports, [])
        assert_same(disk.rows, memory.rows)
        for fraction in (0.1, 0.5):
            parts = split_rows(disk.rows, fraction, seed=3)
            expected = split_rows(memory.rows, fraction, seed=3)
            for rows, others in zip(parts, expected, strict=True):
                assert_same(rows, others)
            joined = group_by_prompt(parts[0], max_units=4)
            expected_joined = group_by_prompt(expected[0], max_units=4)
            assert max(len(row.pairs) for row in joined) > 1
            assert_same(joined, expected_joined)
            assert_same(weight_by_group(joined), weight_by_group(expected_joined))
            assert_same(train_on_responses(parts[0]), train_on_responses(expected[0]))
            assert_same(concatenated(parts), [*expected[0], *expected[1]])
            assert_same(concatenated([joined, expected[1]]), [*expected_joined, *expected[1]])
            assert_same(pickle.loads(pickle.dumps(joined)), expected_joined)
            assert rows[-1] == rows[len(rows) - 1]
            assert rows[1:3] == [rows[1], rows[2]]


@pytest.mark.parametrize("tau_good", ["median", 3.0])
def test_loss_parameters_and_problems_are_the_same(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch, tau_good: Any
) -> None:
    memory, disk = read_sources([source]).rows, on_disk(source, monkeypatch).rows

    def settings(parameters: dict[str, Any]) -> ConfiguredLoss:
        return configured_loss(UniDPOConfig(output_dir="x", report_to="none", loss=parameters))

    loss = settings({"name": "uni_dpo", "tau_good": tau_good})
    assert loss.with_medians(disk).describe() == loss.with_medians(memory).describe()
    assert loss.check_rows(disk) == loss.check_rows(memory) == []


@pytest.mark.parametrize("name", ["uni_dpo", "dpo", "sft"])
def test_rows_without_scores_or_pairs_have_the_same_problems(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    records = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 4},
        {"prompt": "q", "responses": [{"text": "a"}, {"text": "b"}], "pairs": []},
        {"prompt": "<image>q", "images": ["i1.png"], "chosen": "a", "rejected": "b"},
    ]
    with Path(source.path).open("a") as file:
        file.writelines(f"{json.dumps(record)}\n" for record in records)
    memory, disk = read_sources([source]), on_disk(source, monkeypatch)
    assert (memory.problems, len(memory.rows)) == ([], ROWS + len(records))
    loss = configured_loss(UniDPOConfig(output_dir="x", report_to="none", loss={"name": name}))
    problems = loss.check_rows(list(memory.rows))
    assert loss.check_rows(disk.rows) == problems
    assert loss.check_sources(disk.rows) == loss.check_sources(memory.rows)
    rows_with_problems = {problem.where.split(",")[0] for problem in problems}
    assert len(rows_with_problems) == {"uni_dpo": 4, "dpo": 1, "sft": 0}[name]


def test_a_check_of_rows_on_disk_is_the_same_and_keeps_few_rows(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = {"prompt": "q2 é", "chosen": "bad 2", "rejected": "good 2", "weight": 1}
    with Path(source.path).open("a") as file:  # a contradiction and a duplicate
        file.writelines(f"{json.dumps(pair)}\n" for _ in range(2))
    files = DataFiles(sources=[source])
    expected = check_data(files)
    assert (expected.overlap.duplicates, expected.overlap.contradictions) == (1, 2)
    monkeypatch.setattr(row_store, "MAX_ROWS", 10)
    alive: list[weakref.ref[PreferenceRow]] = []
    numbers: list[int] = []
    get_row = row_file.RowFile.__getitem__

    def counted(rows: row_file.RowFile, index: int) -> Any:
        row = get_row(rows, index)
        alive[:] = [*(item for item in alive if item() is not None), weakref.ref(row)]
        numbers.append(len(alive))
        return row

    monkeypatch.setattr(row_file.RowFile, "__getitem__", counted)
    assert check_data(files) == expected
    assert max(numbers) < 10


def test_an_unchanged_source_is_not_read_again(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_disk(source, monkeypatch)
    parsed: list[str] = []
    monkeypatch.setattr(
        load.SourceReader, "_parse", lambda self, where, record: parsed.append(where)
    )
    assert on_disk(source, monkeypatch).reports == first.reports
    assert parsed == []
    for changed in ({"domain": "math"}, {"scores": {"ties": "drop"}}, {"name": "other"}):
        other = SourceOptions.model_validate({**source.model_dump(), **changed})
        read_sources([other])
        assert len(parsed) == ROWS, changed
        parsed.clear()
    path = Path(source.path)
    path.write_text(path.read_text().replace("good 3", "good 33"))
    read_sources([source])
    assert len(parsed) == ROWS


def test_changed_images_change_the_digest(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(source.path).parent
    digests = {data_digest(on_disk(source, monkeypatch).rows).ordered}
    make_image(9, (9, 9)).save(folder / "i0.png")
    for _ in range(2):
        assert_same(on_disk(source, monkeypatch).rows, read_sources([source]).rows)
    digests.add(data_digest(on_disk(source, monkeypatch).rows).ordered)
    (folder / "i1.png").unlink()
    for _ in range(2):
        disk, memory = on_disk(source, monkeypatch).rows, read_sources([source]).rows
        assert data_digest(disk).to_json() == data_digest(list(memory)).to_json()
    digests.add(data_digest(disk).ordered)
    assert len(digests) == 3


def test_only_changed_images_are_read(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(media: Any) -> str:
        hashed.append(Path(media.path).name)
        return content_key(media)

    content_key = content.content_key
    monkeypatch.setattr(content, "content_key", counted)
    data_digest(on_disk(source, monkeypatch).rows)
    assert sorted(hashed) == [f"i{number}.png" for number in range(5)]
    hashed.clear()
    data_digest(on_disk(source, monkeypatch).rows)
    assert hashed == []
    make_image(9, (9, 9)).save(Path(source.path).parent / "i3.png")
    data_digest(on_disk(source, monkeypatch).rows)
    assert hashed == ["i3.png"]


def test_sources_with_problems_are_reported_each_time(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(source.path).open("a") as file:
        file.write('{"prompt": "q", "chosen": "a", "rejected": "a"}\nnot JSON\n')
    expected = read_sources([source])
    assert len(expected.problems) == 2
    for _ in range(2):
        loaded = on_disk(source, monkeypatch)
        assert loaded.problems == expected.problems
        assert_same(loaded.rows, expected.rows)
    assert "0 stores" in run_command("cache", "info").output


def test_a_changed_row_is_named_by_its_place_in_the_file(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(source.path)
    before, _ = split_rows(on_disk(source, monkeypatch).rows, 0.3, seed=0)
    recorded = data_digest(before)
    number = [row.where for row in before].index(f"{path} row 50")
    assert number < 49  # rows before it are held out
    lines = path.read_text().splitlines()
    lines[49] = lines[49].replace("bad 49", "worse")
    path.write_text("\n".join(lines))
    rows, _ = split_rows(on_disk(source, monkeypatch).rows, 0.3, seed=0)
    new = DataDigest.from_json(json.loads(json.dumps(data_digest(rows).to_json())))
    assert difference(recorded, new, rows) == [
        f"source 'rows': 1 row changed, the first is {path} row 50"
    ]


def test_duplicate_ids_are_reported(source: SourceOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "id": "same"}
    with Path(source.path).open("a") as file:
        file.write(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    expected = read_sources([source]).problems
    assert "duplicate id 'same'" in str(expected[0])
    for _ in range(2):
        assert on_disk(source, monkeypatch).problems == expected


def test_damaged_files_are_written_again(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = on_disk(source, monkeypatch).reports
    folder = next(path for path in row_folder("x").parent.iterdir() if path.is_dir())
    assert f"{ROWS} rows" in run_command("cache", "info").output
    for name in ("rows.arrow", "report.json", "media.arrow", "content.npz"):
        data_digest(on_disk(source, monkeypatch).rows)
        path = folder / name
        path.write_bytes(path.read_bytes()[:-40])
        if name in ("rows.arrow", "media.arrow"):
            assert "damaged" in run_command("cache", "verify", "--dry-run").output
        loaded = on_disk(source, monkeypatch)
        assert loaded.reports == expected
        assert_same(loaded.rows, read_sources([source]).rows)
    assert run_command("cache", "prune", "--days", "0").exit_code == 0
    assert not folder.exists()


def test_media_of_every_kind_are_stored(tmp_path: Path) -> None:
    video = FramesVideo((FileImage(tmp_path / "f.png", "w"), MemoryImage(b"12", "w", 3)))
    row = PreferenceRow(
        id="\ud83d",
        domain="multimodal",
        source="s",
        where="w",
        messages=(
            Message("system", ("be", MediaSlot("image"), MediaSlot("image"))),
            Message("user", (MediaSlot("image"), *[MediaSlot("video")] * 4, "?"), '{"a": 1}'),
        ),
        images=(FileImage(tmp_path / "a.png", "w"), MemoryImage(b"1", "v"), UrlImage("u", "w")),
        videos=(FileVideo(tmp_path / "b", "w"), MemoryVideo(b"34", "w"), UrlVideo("v", "w"), video),
        responses=(Response("a", 0.1), Response("b", None, "f", "g"), Response("c", -1)),
        pairs=(Pair(0, 1), Pair(2, 1, 0.3, "id")),
        raw=True,
        tools="[]",
        template_kwargs="{}",
        reasoning="keep",
    )
    assert repr(decode_row(encode_row(row))) == repr(row)
    with pytest.raises(NotStorable):
        encode_row(PreferenceRow(**{**vars(row), "images": (MemoryImage(object(), "w"),) * 3}))


def test_rows_that_cannot_be_stored_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    monkeypatch.setattr(row_store, "MAX_ROWS", 3)
    records = [{"prompt": "<image>?", "chosen": f"{n}", "rejected": "b"} for n in range(8)]
    for record in records[5:]:
        record["images"] = [make_image(1)]  # an object of PIL
    assert isinstance(read_records(records).rows, list)
    problems = read_records(records).problems
    assert len(problems) == 5
    dataset = Dataset.from_list([{k: v for k, v in r.items() if k != "images"} for r in records])
    disk = read_records(dataset.map(lambda row: {"prompt": "?"}))
    assert isinstance(disk.rows, RowTable)
    assert [row.responses[0].text for row in disk.rows] == [str(n) for n in range(8)]
    spool = row_store.RowSpool()
    rows = [
        *disk.rows,
        PreferenceRow(
            **{
                **vars(disk.rows[0]),
                "messages": (Message("user", (MediaSlot("image"),)),),
                "images": (MemoryImage(make_image(1), "w"),),
            }
        ),
    ]
    for row in (*rows, disk.rows[1]):
        spool.append(row)
    assert spool.finish(disk.reports[0], None) == [*rows, disk.rows[1]]
