"""A store gives back what was put in, whole or not at all."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from unidpo_mm.cache.feature_store import FeatureStore
from unidpo_mm.cache.reference_store import ReferenceStore, drop_damaged, open_stores
from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import UniDPOError

ABOUT = {"model": "tiny", "settings": {"compute": "float32"}}


def store_in(folder: Path, name: str = "a" * 64) -> ReferenceStore:
    return ReferenceStore(name, ABOUT, folder=folder)


def entries(count: int, *, offset: int = 0) -> dict[str, torch.Tensor]:
    return {f"key-{n + offset}": torch.full((n % 7 + 1,), -0.1 * n) for n in range(count)}


def test_what_is_put_in_comes_out(tmp_path: Path) -> None:
    store, given = store_in(tmp_path), entries(1200)
    store.put(given)
    found = store.get([*given, "unknown"])
    assert found.keys() == given.keys()
    assert all(torch.equal(found[key], given[key]) for key in given)
    assert len(store_in(tmp_path)) == 1200  # another process's view
    assert not store_in(tmp_path, "b" * 64).get(list(given))


WRITER = """
import sys, time, torch
from pathlib import Path
from unidpo_mm.cache.reference_store import ReferenceStore
store = ReferenceStore("a" * 64, {}, folder=Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    store.put({f"{sys.argv[2]}-{number}": torch.full((50,), float(number))})
    print(number, flush=True)
"""


def write(folder: Path, name: str, count: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WRITER, str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    writers = [write(tmp_path, name, 100) for name in ("one", "two")]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    assert len(store_in(tmp_path)) == 200


def test_a_killed_writer_leaves_whole_entries(tmp_path: Path) -> None:
    writer = write(tmp_path, "one", 100_000)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.kill()
    writer.wait()
    store = store_in(tmp_path)
    count = len(store)
    assert count >= 20
    found = store.get([f"one-{n}" for n in range(count)])
    assert len(found) == count
    assert all(len(logps) == 50 for logps in found.values())
    store.put(entries(3))  # and the next process goes on
    assert len(store) == count + 3


def damage(store: ReferenceStore, key: str) -> None:
    with sqlite3.connect(store.path) as connection:
        connection.execute("update logps set value = zeroblob(8) where key = ?", (key,))


def test_a_damaged_entry_is_not_there(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.put(entries(5))
    damage(store, "key-3")
    assert sorted(store.get([f"key-{n}" for n in range(5)])) == ["key-0", "key-1", "key-2", "key-4"]
    assert drop_damaged(store.path) == 1
    assert len(store) == 4


def test_a_full_disk_keeps_what_is_there_and_says_what_to_do(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.put(entries(5))
    pages = store._connection.execute("pragma page_count").fetchone()[0]
    store._connection.execute(f"pragma max_page_count = {pages}")  # as a disk that is full
    with pytest.raises(UniDPOError, match=r"disk is full\. Make room or point UNIDPO_MM_CACHE"):
        store.put({f"more-{n}": torch.zeros(500) for n in range(100)})
    assert len(store) == 5
    assert len(store.get([f"more-{n}" for n in range(100)])) == 0


def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{'a' * 64}.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(UniDPOError, match="not a database"):
        store_in(tmp_path)
    assert [found for _, found in open_stores(tmp_path)] == [None]


def run(*words: str) -> str:
    result = CliRunner().invoke(build_app(words), words)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_shows_checks_and_removes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path))
    folder = tmp_path / "references"
    assert "0 stores" in run("cache", "info")
    store, old = store_in(folder), store_in(folder, "b" * 64)
    store.put(entries(5))
    damage(store, "key-1")
    (folder / "broken.sqlite").write_bytes(b"no database at all" * 50)
    with sqlite3.connect(old.path) as connection:
        connection.execute(
            "update about set value = ? where name = 'used'", (str(time.time() - 40 * 86400),)
        )
    shown = run("cache", "info")
    assert "3 stores" in shown
    assert "tiny, float32: 5 answers" in shown
    assert "cannot be read" in shown
    features = FeatureStore("c" * 64, limit_bytes=10**6)
    features.put("x", {"0.0": torch.zeros(5)})
    assert "features of images: 1 prompt," in run("cache", "info")
    shown = run("cache", "verify")
    assert "4 entries kept, 1 removed" in shown
    assert "cannot be read (file is not a database): removed" in shown
    assert "1 store removed" in run("cache", "prune")
    assert [path for path, _ in open_stores(folder)] == [store.path]
    assert "2 stores removed" in run("cache", "prune", "--days", "0")
    assert not features.folder.exists()
    assert not list(open_stores(folder))
