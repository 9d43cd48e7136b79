"""Rows that are read while the run trains."""

import json
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unidpo_mm.config import SourceOptions
from unidpo_mm.data import record_reader, stream_batches, stream_sources
from unidpo_mm.data.load import DataFiles, ReadOptions, read_sources
from unidpo_mm.data.stream_batches import StreamDataset, StreamItem, StreamPlan
from unidpo_mm.data.stream_sources import first_rows, is_stream, streamed_sources
from unidpo_mm.data.streams import RowStream
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import PreferenceRow


def lines(name: str, rows: int) -> str:
    return "".join(
        json.dumps({"id": f"{name}{n}", "prompt": "q", "chosen": f"{n}", "rejected": "b"}) + "\n"
        for n in range(rows)
    )


@pytest.fixture
def files(tmp_path: Path) -> list[SourceOptions]:
    (tmp_path / "a.jsonl").write_text(lines("a", 10))
    (tmp_path / "b.jsonl").write_text(lines("b", 7))
    options: list[dict[str, Any]] = [{"path": "a.jsonl", "weight": 3}, {"path": "b.jsonl"}]
    return [
        SourceOptions(**{**item, "path": str(tmp_path / item["path"]), "streaming": True})
        for item in options
    ]


def stream(
    files: Sequence[SourceOptions], *, seed: int | None = 0, state: Sequence[int] | None = None
) -> RowStream:
    sources = streamed_sources(DataFiles(sources=files), None, ReadOptions())
    return RowStream(sources, seed=seed, block=4, state=state)


def ids(rows: RowStream, count: int) -> list[str]:
    return [next(rows).id for _ in range(count)]


def test_a_stream_has_the_rows_of_the_file_in_each_epoch(files: list[SourceOptions]) -> None:
    expected = [row.id for row in read_sources(files[:1]).rows]
    assert ids(stream(files[:1], seed=None), 25) == [*expected, *expected, *expected[:5]]
    shuffled = ids(stream(files[:1]), 20)
    assert sorted(shuffled[:10]) == sorted(shuffled[10:]) == sorted(expected)
    assert sorted(shuffled[:4]) == expected[:4]  # a block
    assert shuffled[:10] != shuffled[10:]
    assert ids(stream(files[:1], seed=1), 20) != shuffled


def test_a_stream_continues_from_every_state(files: list[SourceOptions]) -> None:
    for chosen in (files[:1], files):
        rows = stream(chosen)
        states, expected = [], []
        for _ in range(40):
            states.append(rows.state)
            expected.append(next(rows).id)
        for number, state in enumerate(states):
            assert ids(stream(chosen, state=state), 40 - number) == expected[number:]


def test_rows_are_drawn_by_weights(files: list[SourceOptions]) -> None:
    counts = Counter(name[0] for name in ids(stream(files), 400))
    assert 270 <= counts["a"] <= 330  # 300 are expected


def test_invalid_rows_and_empty_sources_are_reported(
    files: list[SourceOptions], tmp_path: Path
) -> None:
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"prompt": "q", "chosen": "a", "rejected": "a"}\n')
    rows = stream(files[:1], seed=None)
    assert len(ids(rows, 8)) == 8
    with pytest.raises(DataError, match="same response") as error:
        ids(rows, 3)
    assert error.value.problems == tuple(read_sources(files[:1]).problems)
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows to train on"):
        next(stream(files[1:]))
    (tmp_path / "b.jsonl").write_text('{"prompt": "q", "response": "a", "helpfulness": 1}\n')
    with pytest.raises(DataError, match="one response per record"):
        next(stream([files[1].model_copy(update={"format": "helpsteer_ratings"})]))


class Iterated(IterableDataset[dict[str, Any]]):
    def __iter__(self) -> Any:
        return (json.loads(line) for line in lines("c", 9).splitlines())


def test_iterable_data_sets_of_torch_and_datasets_have_the_same_rows() -> None:
    from datasets import Dataset

    hub = Dataset.from_list(list(Iterated())).to_iterable_dataset()
    streams = [
        RowStream(
            streamed_sources(dataset, SourceOptions(path="data"), ReadOptions()), seed=0, block=4
        )
        for dataset in (Iterated(), hub)
    ]
    states = []
    for _ in range(20):
        states.append(streams[0].state)
        assert streams[0].state == streams[1].state
        first, second = map(next, streams)
        assert first == second
    resumed = RowStream(
        streamed_sources(hub, SourceOptions(path="data"), ReadOptions()),
        seed=0,
        block=4,
        state=states[15],
    )
    assert ids(resumed, 5)[-1] == first.id


def test_what_is_a_stream(files: list[SourceOptions]) -> None:
    assert is_stream(DataFiles(sources=files))
    assert is_stream(Iterated())
    assert not is_stream([{"prompt": "q"}])
    assert not is_stream(None)
    assert not is_stream(iter([{}]))  # it is read completely


@pytest.fixture
def dataset(files: list[SourceOptions], monkeypatch: pytest.MonkeyPatch) -> StreamDataset:
    """Return a data set that skips a row; its rows are not encoded."""
    monkeypatch.setattr(stream_batches, "encode_checked", lambda adapter, row: row)
    plan = StreamPlan(
        open=lambda state: stream(files, state=state),
        prepare=lambda row: None if row.id == "a3" else row,
    )
    return StreamDataset(plan, None, 3, 12)  # type: ignore[arg-type] # no adapter


def batch_ids(item: StreamItem) -> list[str]:
    return [row.id for row in item.groups]  # type: ignore[attr-defined] # they are rows here


def test_micro_batches_by_number(files: list[SourceOptions], dataset: StreamDataset) -> None:
    items = [dataset[number] for number in range(12)]
    rows = stream(files)
    expected = [name for name in ids(rows, 60) if name != "a3"]
    assert [name for item in items for name in batch_ids(item)] == expected[:36]
    assert [batch_ids(dataset[number]) for number in (7, 2, 11)] == [
        batch_ids(items[number]) for number in (7, 2, 11)
    ]
    for number in range(11):
        dataset.start = (number + 1, items[number].state)
        dataset._stream = None
        assert batch_ids(dataset[number + 1]) == batch_ids(items[number + 1])


def test_large_rows_wait_for_the_next_micro_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_batches, "encode_checked", lambda adapter, row: row)
    sizes = (1, 2, 3, 1, 5, 1, 1)
    records = []
    for number, size in enumerate(sizes):
        responses = [{"text": str(n), "score": n} for n in range(size + 1)]
        records.append({"id": str(number), "prompt": "q", "responses": responses})
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = SourceOptions(path=str(tmp_path / "r.jsonl"), scores={"pairs": "adjacent"})
    plan = StreamPlan(
        open=lambda state: stream([source], seed=None, state=state), prepare=lambda row: row
    )
    dataset = StreamDataset(plan, None, 4, 20)  # type: ignore[arg-type] # no adapter
    items = [dataset[number] for number in range(6)]
    assert [batch_ids(item) for item in items] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
        ["5", "6", "0"],
        ["1"],
        ["2", "3"],
    ]
    for number in range(5):
        dataset.start = (number + 1, items[number].state)
        dataset._stream = None
        assert batch_ids(dataset[number + 1]) == batch_ids(items[number + 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_workers_divide_the_same_micro_batches(
    dataset: StreamDataset, workers: int
) -> None:
    expected = [batch_ids(dataset[number]) for number in range(12)]
    for rank in range(2):
        loader: Any = DataLoader(
            dataset,
            batch_sampler=[[number] for number in range(rank, 12, 2)],
            collate_fn=lambda items: batch_ids(items[0]),
            num_workers=workers,
        )
        assert list(loader) == expected[rank::2]


def test_an_error_of_a_worker_is_passed_on(dataset: StreamDataset) -> None:
    def broken(row: PreferenceRow) -> PreferenceRow:
        raise DataError(Problem(row.where, "broken", "Correct it"))

    dataset.plan = StreamPlan(open=dataset.plan.open, prepare=broken)
    with pytest.raises(DataError, match="broken"):
        dataset[0]
    loader: Any = DataLoader(dataset, batch_size=1, collate_fn=list, num_workers=1)
    ((item,),) = islice(loader, 1)
    assert isinstance(item.groups[0], DataError)


class Sharded(IterableDataset[dict[str, Any]]):
    """Each data worker gets its own part of the records, as torch documents it."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        part = slice(None) if info is None else slice(info.id, None, info.num_workers)
        return (json.loads(line) for line in lines("c", 8).splitlines()[part])


def several_shards() -> Any:
    """Return a data set as on a hub, in files that workers would divide among themselves."""
    from datasets import Dataset

    return Dataset.from_list(list(Sharded())).to_iterable_dataset(num_shards=2)


@pytest.mark.parametrize("create", [Sharded, several_shards])
def test_workers_read_all_shards(
    create: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_batches, "encode_checked", lambda adapter, row: row)
    sources = streamed_sources(create(), SourceOptions(path="data"), ReadOptions())
    plan = StreamPlan(
        open=lambda state: RowStream(sources, seed=0, block=4, state=state),
        prepare=lambda row: row,
    )
    batches = [
        [batch_ids(item) for (item,) in loader]
        for workers in (0, 2)
        for dataset in [StreamDataset(plan, None, 2, 6)]  # type: ignore[arg-type] # no adapter
        for loader in [DataLoader(dataset, batch_size=1, collate_fn=list, num_workers=workers)]
    ]
    assert batches[0] == batches[1]
    assert sorted(name for batch in batches[0][:4] for name in batch) == [f"c{n}" for n in range(8)]


def without_ids(path: Path, rows: int) -> None:
    path.write_text(
        "".join(
            json.dumps({"prompt": f"{path.name} {n}", "chosen": "a", "rejected": "b"}) + "\n\n"
            for n in range(rows)
        )
    )


def test_rows_have_the_same_ids_as_without_streaming(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        without_ids(tmp_path / name, 3)
    source = SourceOptions(path=str(tmp_path), streaming=True)
    expected = [row.id for row in read_sources([source]).rows]
    assert len(set(expected)) == 6
    assert ids(stream([source], seed=None), 6) == expected
    rows = stream([source])
    ids(rows, 4)
    assert next(stream([source], state=rows.state)).id == next(rows).id


def checked(*sources: SourceOptions, count: int = 4) -> Any:
    return first_rows(streamed_sources(DataFiles(sources=sources), None, ReadOptions()), count)


def test_the_first_rows_are_those_of_every_source(files: list[SourceOptions]) -> None:
    rare = files[1].model_copy(update={"weight": 0.001})
    loaded = checked(files[0], rare)
    assert [row.id for row in loaded.rows] == ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]
    assert [(report.source, report.rows) for report in loaded.reports] == [
        ("a", 4),
        ("b", 4),
    ]
    assert len(checked(*files, count=64).rows) == 17  # of sources with fewer rows
    with Path(files[0].path).open("a") as file:
        file.write(lines("a", 1) + lines("z", 1))
    loaded = checked(*files, count=64)
    assert [row.id for row in loaded.rows if row.source == "a"][-1] == "z0"
    assert ["duplicate id 'a0'" in str(problem) for problem in loaded.problems] == [True]


def test_all_problems_of_the_first_rows_are_reported(files: list[SourceOptions]) -> None:
    for source in files:
        path = Path(source.path)
        path.write_text('{"prompt": "q", "chosen": "a", "rejected": "a"}\n' + path.read_text())
    loaded = checked(*files)
    assert [problem.where for problem in loaded.problems] == [
        f"{source.path} row 1, field 'chosen'" for source in files
    ]
    assert [report.refused for report in loaded.reports] == [1, 1]


def test_notes_and_missing_columns_are_those_of_the_first_rows(
    files: list[SourceOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(files[0].path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "notes": "x"}) + "\n" for row in rows))
    (note,) = checked(files[0]).reports[0].sentences()
    assert "unused columns: notes" in note
    mapped = files[0].model_copy(update={"columns": {"images": "imgz"}})
    (problem,) = checked(mapped).problems
    assert "imgz" in str(problem)
    assert problem.where.endswith("columns.images")
    rows[-1]["imgz"] = None  # after the first rows
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not checked(mapped).problems
    monkeypatch.setattr(record_reader, "SEARCHED_RECORDS", 9)
    assert len(checked(mapped).problems) == 1


def test_an_open_stream_can_be_sent_to_a_worker(
    files: list[SourceOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_batches, "encode_checked", lambda adapter, row: row)
    scaled = files[0].model_copy(
        update={"scores": files[0].scores.model_copy(update={"scale": (1, 5)})}
    )
    sources = streamed_sources(DataFiles(sources=[scaled, files[1]]), None, ReadOptions())
    plan = StreamPlan(open=Opened(sources), prepare=kept)
    dataset = StreamDataset(plan, None, 3, 12)  # type: ignore[arg-type] # no adapter
    expected = [batch_ids(dataset[number]) for number in range(4)]
    copy = pickle.loads(pickle.dumps(dataset))
    assert [batch_ids(copy[number]) for number in range(4)] == expected


class Opened:
    """Opens the stream of some sources."""

    def __init__(self, sources: Any) -> None:
        self.sources = sources

    def __call__(self, state: Sequence[int] | None) -> RowStream:
        return RowStream(self.sources, seed=0, block=4, state=state)


def kept(row: PreferenceRow) -> PreferenceRow:
    return row


def test_a_forked_worker_opens_its_own_files(
    dataset: StreamDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, opened = dataset[0], dataset._stream
    assert batch_ids(dataset[1])
    assert dataset._stream is opened
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    assert batch_ids(dataset[2])
    assert dataset._stream is not opened
    assert batch_ids(dataset[0]) == batch_ids(item)


def test_a_large_json_file_cannot_be_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([json.loads(line) for line in lines("a", 3).splitlines()]))
    source = SourceOptions(path=str(path), streaming=True)
    assert ids(stream([source], seed=None), 3) == ["a0", "a1", "a2"]
    monkeypatch.setattr(stream_sources, "MAX_JSON_BYTES", 10)
    with pytest.raises(DataError, match="cannot be streamed"):
        stream([source])
