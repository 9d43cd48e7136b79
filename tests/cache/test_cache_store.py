"""Reference stores: entries are complete or missing, and damage is reported."""

import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forked import run_forked
from typer.testing import CliRunner

from unidpo_mm.cache.feature_store import FeatureStore
from unidpo_mm.cache.reference_store import ReferenceStore, list_references, verify_store
from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import UniDPOError

ABOUT = {"model": "tiny", "settings": {"compute": "float32"}}


def store_in(cache: Path, name: str = "a" * 64) -> ReferenceStore:
    return ReferenceStore(name, ABOUT, cache=cache)


def entries(count: int, *, offset: int = 0) -> dict[str, torch.Tensor]:
    return {f"key-{n + offset}": torch.full((n % 7 + 1,), -0.1 * n) for n in range(count)}


def test_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    store, values = store_in(tmp_path), entries(1200)
    store.put(values)
    result = store.get([*values, "unknown"])
    assert result.keys() == values.keys()
    assert all(torch.equal(result[key], values[key]) for key in values)
    assert len(store_in(tmp_path)) == 1200  # as another process sees it
    assert not store_in(tmp_path, "b" * 64).get(list(values))


def write(cache: Path, name: str, count: int) -> None:
    """Write entries one by one, and a file `name` after the twentieth."""
    store = ReferenceStore("a" * 64, {}, cache=cache)
    for number in range(count):
        store.put({f"{name}-{number}": torch.full((50,), float(number))})
        if number == 19:
            (cache / name).touch()


def test_two_processes_can_write_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        ends = pool.map(lambda name: run_forked(lambda: write(tmp_path, name, 100)), ("one", "two"))
        assert [end.code for end in ends] == [0, 0]
    assert len(store_in(tmp_path)) == 200


def test_killed_writer_leaves_complete_entries(tmp_path: Path) -> None:
    def kill(child: int) -> None:
        deadline = time.monotonic() + 100
        while not (tmp_path / "one").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)

    end = run_forked(lambda: write(tmp_path, "one", 100_000), on_start=kill)
    assert end.signal == signal.SIGKILL, end.output
    store = store_in(tmp_path)
    count = len(store)
    assert count >= 20
    result = store.get([f"one-{n}" for n in range(count)])
    assert len(result) == count
    assert all(len(logps) == 50 for logps in result.values())
    store.put(entries(3))  # the next process can write
    assert len(store) == count + 3


def damage(store: ReferenceStore, key: str) -> None:
    with sqlite3.connect(store.path) as connection:
        connection.execute("update logps set value = zeroblob(8) where key = ?", (key,))


def test_damaged_entries_are_missing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.put(entries(5))
    damage(store, "key-3")
    assert sorted(store.get([f"key-{n}" for n in range(5)])) == ["key-0", "key-1", "key-2", "key-4"]
    assert verify_store(store.path).damaged == 1
    assert len(store) == 4


def test_full_disk_keeps_entries_and_is_explained(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.put(entries(5))
    pages = store._connection.execute("pragma page_count").fetchone()[0]
    store._connection.execute(f"pragma max_page_count = {pages}")  # like a full disk
    with pytest.raises(UniDPOError, match=r"disk is full\. Free space or point UNIDPO_MM_CACHE"):
        store.put({f"more-{n}": torch.zeros(500) for n in range(100)})
    assert len(store) == 5
    assert len(store.get([f"more-{n}" for n in range(100)])) == 0


def test_invalid_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / f"{'a' * 64}.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(UniDPOError, match="not a database"):
        store_in(tmp_path)
    assert [store.entries for store in list_references(tmp_path)] == [None]


def run(*words: str) -> str:
    result = CliRunner().invoke(build_app(words), words)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_lists_verifies_and_removes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path))
    assert "0 stores" in run("cache", "info")
    store, old = store_in(tmp_path), store_in(tmp_path, "b" * 64)
    store.put(entries(5))
    damage(store, "key-1")
    invalid = tmp_path / "references" / "broken.sqlite"
    invalid.write_bytes(b"no database at all" * 50)
    with sqlite3.connect(old.path) as connection:
        connection.execute(
            "update about set value = ? where name = 'used'", (str(time.time() - 40 * 86400),)
        )
    features = FeatureStore("c" * 64, limit_bytes=10**6)
    features.put("x", {"0.0": torch.zeros(5)})
    output = run("cache", "info")
    assert "4 stores" in output
    assert "tiny, float32: 5 responses" in output
    assert "cannot be read" in output
    assert "image features of 1 prompt" in output
    output = run("cache", "verify", "--dry-run")
    assert "4 entries intact, 1 damaged" in output
    assert "cannot be read (file is not a database): damaged" in output
    assert len(store) == 5
    assert invalid.exists()
    output = run("cache", "verify")
    assert "4 entries kept, 1 removed" in output
    assert "cannot be read (file is not a database): removed" in output
    assert not invalid.exists()
    assert "1 store to remove" in run("cache", "prune", "--dry-run")
    assert old.path.exists()
    assert "1 store removed" in run("cache", "prune")
    assert [info.path for info in list_references(tmp_path)] == [store.path]
    assert "2 stores removed" in run("cache", "prune", "--days", "0")
    assert not features.directory.exists()
    assert not list_references(tmp_path)
