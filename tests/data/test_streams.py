"""Rows that are read while the run trains."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from unidpo_mm.config import SourceOptions
from unidpo_mm.data import stream_batches
from unidpo_mm.data.load import DataFiles, ReadOptions, read_sources
from unidpo_mm.data.stream_batches import StreamDataset, StreamItem, StreamPlan
from unidpo_mm.data.stream_sources import is_stream, streamed_sources
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
