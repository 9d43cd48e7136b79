"""The store of responses: what survives a kill, what is repeated, and the order of the result."""

import errno
import json
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from unidpo_mm import atomic
from unidpo_mm.errors import DataError
from unidpo_mm.inference.store import ResponseStore

pytestmark = [
    pytest.mark.filterwarnings("error::ResourceWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

MANIFEST = {"model": "m"}


def record(name: str, response: str = "", **fields: Any) -> dict[str, Any]:
    return {"id": name, "response": response, **fields}


def write_lines(path: Path, *records: Mapping[str, Any]) -> None:
    """Write a final file or a part, with the manifest of the tests."""
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps(item) + "\n" for item in ({"manifest": MANIFEST}, *records)]
    path.write_text("".join(lines), encoding="utf-8")


def responses(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return {item["id"]: item["response"] for item in map(json.loads, lines)}


def complete(path: Path, ids: Iterable[str], response: str) -> list[str]:
    """Complete a file and return the ids of the records that were added."""
    store, added = ResponseStore(path, MANIFEST), []

    def work() -> None:
        added.extend(name for name in ids if name not in store.done)
        store.add([record(name, response) for name in added])

    store.complete(list(ids), work)
    return added


def test_a_resumed_run_keeps_complete_lines_and_merges_in_order(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    first = ResponseStore(path, {"model": "m"})
    first.open()
    first.add([{"id": "b", "response": "2"}])
    with first.part.open("ab") as file:
        file.write(b'{"id": "a", "resp')  # a kill in the middle of a line
    second = ResponseStore(path, {"model": "m"})
    second.complete(["a", "b"], lambda: second.add([{"id": "a", "response": "1"}]))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == [
        '{"manifest": {"model": "m"}}',
        '{"id": "a", "response": "1"}',
        '{"id": "b", "response": "2"}',
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl"]
    assert ResponseStore(path, {"model": "m"}).manifest == {"model": "m"}


def test_only_the_part_of_this_process_is_cut(tmp_path: Path):
    """Another process may be writing its last line at this moment."""
    path = tmp_path / "out.jsonl"
    for rank in range(2):
        part = tmp_path / "out.parts" / f"{rank}.jsonl"
        write_lines(part, record(f"{rank}"))
        with part.open("ab") as file:
            file.write(b'{"id": "x", "resp')
    store = ResponseStore(path, MANIFEST, rank=1)
    store.open()
    assert list(store.done) == ["0", "1"]
    assert (tmp_path / "out.parts" / "0.jsonl").read_bytes().endswith(b'"resp')
    assert store.part.read_bytes().endswith(b"}\n")


def test_other_settings_are_refused_unless_declared_unstable(tmp_path: Path):
    class Lenient(ResponseStore):
        unstable = frozenset({"seen"})

    path = tmp_path / "out.jsonl"
    store = Lenient(path, {"model": "m", "seen": 1})
    store.complete(["a"], lambda: store.add([{"id": "a", "response": ""}]))
    Lenient(path, {"model": "m", "seen": 2}).open()
    Lenient(path, {"model": "m"}).open()  # an earlier version did not record it
    with pytest.raises(DataError, match='responses were made with different settings: model was "'):
        Lenient(path, {"model": "n", "seen": 1}).open()


@pytest.mark.parametrize("line", ["3", "[]", '{"response": "a"}', "{"])
def test_a_line_that_is_not_a_record_is_reported(tmp_path: Path, line: str):
    path = tmp_path / "out.jsonl"
    path.write_text(f'{{"manifest": {{}}}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the line is not a recorded response"):
        ResponseStore(path, {}).open()


def test_errors_are_repeated_when_a_run_resumes(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    write_lines(path, record("a", "1"), record("b", error="memory"))
    assert complete(path, "ab", "2") == ["b"]
    assert responses(path) == {"a": "1", "b": "2"}
    assert complete(path, "ab", "3") == []


def test_a_repeated_error_that_was_not_merged_replaces_the_error(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    write_lines(path, record("a", error="memory"))
    write_lines(tmp_path / "out.parts" / "0.jsonl", record("a", "1"))
    assert complete(path, "a", "2") == []
    assert responses(path) == {"a": "1"}
    assert "error" not in path.read_text(encoding="utf-8")


def test_the_last_record_of_an_id_counts(tmp_path: Path):
    path, parts = tmp_path / "out.jsonl", tmp_path / "out.parts"
    write_lines(path, record("a", "old"), record("x", error="memory"))
    write_lines(parts / "0.jsonl", record("a", "1"), record("a", "2"), record("b", "3"))
    write_lines(parts / "1.jsonl", record("b", "4"), record("c", "5"))
    write_lines(parts / "2.jsonl", record("c", error="memory"))
    store = ResponseStore(path, MANIFEST)
    store.open()
    assert {name: item["response"] for name, item in store.done.items()} == {"a": "2", "b": "4"}
    store.add([record("c", "6"), record("x", "7")])
    store.merge("abcx")
    # parts are read again, in the order of their names: an error does not replace a response
    assert responses(path) == {"a": "2", "b": "4", "c": "5", "x": "7"}


def test_a_finished_file_is_continued_with_other_ids(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    assert complete(path, "ac", "four") == ["a", "c"]
    content = path.read_bytes().replace(b'"four"}', b'"four" }')  # a form that is not written
    path.write_bytes(content)
    assert complete(path, "a", "other") == []
    assert path.read_bytes() == content
    store = ResponseStore(path, MANIFEST)
    store.open("abcd")
    assert not store.finished
    store.add([record("b", "eight")])
    del store  # a run that ends before it is finished
    assert complete(path, "abcd", "eight") == ["d"]
    before, after = content.splitlines(), path.read_bytes().splitlines()
    assert [after[0], after[1], after[3]] == before
    assert responses(path) == {"a": "four", "b": "eight", "c": "four", "d": "eight"}
    assert [item.name for item in tmp_path.iterdir()] == ["out.jsonl"]


def test_missing_records_are_counted(tmp_path: Path):
    with ResponseStore(tmp_path / "out.jsonl", MANIFEST) as store:
        store.open()
        with pytest.raises(DataError, match="2 samples are not finished, the first of them 'a'"):
            store.merge("ab")
        assert store.part.is_file()


def test_all_processes_can_read_the_merged_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first process merges, and removes the parts that the others have read."""
    path = tmp_path / "out.jsonl"
    first, second = (ResponseStore(path, MANIFEST, rank=rank) for rank in range(2))
    first.open()
    first.add([record("a", "1")])

    class SecondProcess:
        is_main_process = False
        waits = 0

        def wait_for_everyone(self) -> None:
            self.waits += 1
            if self.waits == 3:
                first.merge("ab")

    from unidpo_mm.distributed import processes

    state = SecondProcess()
    monkeypatch.setattr(processes, "processes", lambda: state)
    second.complete("ab", lambda: second.add([record("b", "2")]))
    assert {name: item["response"] for name, item in second.done.items()} == {"a": "1", "b": "2"}


def test_a_merge_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out.jsonl"
    complete(path, "a", "1")
    content = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        complete(path, "ab", "2")
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out.jsonl", "out.parts"]
    assert complete(path, "ab", "3") == []
    assert responses(path) == {"a": "1", "b": "2"}


def test_a_full_disk_leaves_complete_lines(tmp_path: Path):
    store = ResponseStore(tmp_path / "out.jsonl", MANIFEST)
    store.open()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        store.add([record("a", "1")])
        with pytest.raises(OSError, match="File too large"):
            store.add([record("b", "2" * 2000)])
        store.add([record("c", "3")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(store.done) == list(responses(store.part)) == ["a", "c"]


def test_a_store_that_is_not_open_refuses_records(tmp_path: Path):
    with ResponseStore(tmp_path / "out.jsonl", MANIFEST) as store:
        store.open()
        store.add([record("a", "1")])
    with pytest.raises(ValueError, match="not open for writing"):
        store.add([record("b")])
    assert store.done["a"]["response"] == "1"  # records can still be read


def test_a_part_without_records_does_not_refuse_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseStore(path, {"model": "first"}) as store:
        store.open()  # ends before it has a record
    with ResponseStore(path, {"model": "second"}) as store:
        store.open(["a"])
        store.add([record("a", "text")])
        store.merge(["a"])
    assert responses(path) == {"a": "text"}
    with pytest.raises(DataError, match="different settings"):
        ResponseStore(path, {"model": "first"}).open()
