"""The index of a store: memory and time do not depend on the length of the texts."""

import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from unidpo_mm.errors import DataError
from unidpo_mm.inference import record_index
from unidpo_mm.inference.store import ResponseStore

pytestmark = [
    pytest.mark.filterwarnings("error::ResourceWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

RESPONSE = "x" * 300


def record_id(number: int) -> str:
    return f"prompt-{number // 4:08}-{number % 4}"


def write_part(path: Path, count: int) -> ResponseStore:
    """Write a part with a number of records and return its store, which is not open yet."""
    store = ResponseStore(path, {})
    store.parts.mkdir()
    with store.part.open("w", encoding="utf-8") as file:
        file.write('{"manifest": {}}\n')
        for number in range(count):
            file.write(json.dumps({"id": record_id(number), "response": RESPONSE}) + "\n")
    return store


def memory_mb() -> float:
    """Return the resident memory of this process in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_an_index_holds_no_texts(tmp_path: Path):
    """At most 300 bytes per record, which is 300 MB for a million, and less than the texts."""
    count = 20_000
    store = write_part(tmp_path / "out.jsonl", count)
    tracemalloc.start()
    try:
        store.open()
        opened, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert sum(len(item["response"]) for item in store.done.values()) == 300 * count
        store.merge([record_id(number) for number in reversed(range(count))])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert opened < 300 * count
    # the index of the merged file, the ids of this test, and the missing ids that are looked for
    assert peak - opened < 400 * count
    assert next(iter(store.done)) == record_id(count - 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="measures resident memory")
def test_a_million_responses(tmp_path: Path):
    store = write_part(tmp_path / "out.jsonl", 1_000_000)
    gc.collect()
    memory, start = memory_mb(), time.process_time()
    store.open()
    opened, used = time.process_time() - start, memory_mb() - memory
    start = time.process_time()
    for number in range(1000):
        store.add([{"id": f"new-{number}", "response": RESPONSE}])
    appended = time.process_time() - start
    assert len(store.done) == 1_001_000
    assert opened < 20
    assert used < 500
    assert appended < 1
    start = time.process_time()
    store.merge([*sorted(store.done)])
    assert time.process_time() - start < 60
    assert memory_mb() - memory < 700  # the index of the parts, that of the new file, and ids


def test_records_are_read_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = write_part(tmp_path / "out.jsonl", 10)
    store.open()
    with monkeypatch.context() as patch:
        patch.setattr(record_index.Path, "open", lambda *_: pytest.fail("a file was opened"))
        assert record_id(3) in store.done
        assert "x" not in store.done
        assert len(store.done) == len(store.done.values()) == 10
        assert [*store.done] == [*store.done.keys()] == [record_id(n) for n in range(10)]
    assert store.done[record_id(3)] == {"id": record_id(3), "response": RESPONSE}
    assert [item["id"] for item in store.done.values()] == [name for name, _ in store.done.items()]
    assert store.done.get("x") is None
    with pytest.raises(KeyError):
        store.done["x"]
    with pytest.raises(TypeError, match="does not support item assignment"):
        store.done["x"] = {}  # type: ignore[index] # read only


def test_text_of_several_bytes_per_character_does_not_shift_positions(tmp_path: Path):
    store = ResponseStore(tmp_path / "out.jsonl", {"name": "é漢"})
    store.open()
    texts = {"a": "é", "漢": "漢\u2028\r\n", "b": "\U0001f600", "c": ""}
    store.add([{"id": name, "response": text} for name, text in texts.items()])
    again = ResponseStore(tmp_path / "out.jsonl", {"name": "é漢"})
    again.open()
    for part in (store, again):
        assert {name: item["response"] for name, item in part.done.items()} == texts


def test_other_processes_append_while_records_are_read(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    first, second = (ResponseStore(path, {}, rank=rank) for rank in range(2))
    first.open()
    first.add([{"id": "a", "response": "1"}])
    second.open()
    values = iter(second.done.values())
    first.add([{"id": "b", "response": "2"}])
    assert next(values) == second.done["a"] == {"id": "a", "response": "1"}
    assert [*second.done] == ["a"]
    second.merge(["a", "b"])  # reads what the others have added
    assert [*second.done] == ["a", "b"]


def test_a_file_that_was_changed_is_reported(tmp_path: Path):
    store = write_part(tmp_path / "out.jsonl", 3)
    store.open()
    content = store.part.read_bytes()
    for damaged in (content[5:], content[:30], b""):
        store.part.write_bytes(damaged)
        with pytest.raises(DataError, match="has moved, because another process changed the file"):
            store.done[record_id(2)]


def test_a_merge_copies_only_the_lines_of_the_index(tmp_path: Path):
    store = ResponseStore(tmp_path / "out.jsonl", {})
    store.complete(["a"], lambda: store.add([{"id": "a", "response": "1"}]))
    store.open(["a", "b"])
    store.add([{"id": "b", "response": "2"}])
    content = store.path.read_bytes().replace(b"{}", b"{ }")
    store.path.write_bytes(content)
    with pytest.raises(DataError, match="the record of 'a' has moved"):
        store.merge(["a", "b"])
    assert store.path.read_bytes() == content


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files")
def test_a_store_keeps_no_file_open_but_its_lock(tmp_path: Path):
    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    store = write_part(tmp_path / "out.jsonl", 10)
    store.open()
    values = iter(store.done.values())
    next(values)
    del values  # not read to its end
    store.add([{"id": "a", "response": ""}])
    assert store.done["a"]
    assert count() == before + 1
    store.merge(["a"])
    store.close()
    assert count() == before


def test_the_module_is_light():
    text = (
        "import sys, unidpo_mm.inference.store\n"
        "print({'torch', 'numpy', 'transformers', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
