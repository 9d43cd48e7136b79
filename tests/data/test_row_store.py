"""Files of rows survive full disks, killed processes and damage: no row is lost."""

import errno
import gc
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import run_command
from support.forked import run_forked

from unidpo_mm.cache import row_files
from unidpo_mm.cache.directory import cache_directory
from unidpo_mm.cache.staging import OTHER_MACHINE_S, StagingFolder
from unidpo_mm.config import SourceOptions
from unidpo_mm.data import content, load, row_file, row_store
from unidpo_mm.data.load import read_sources
from unidpo_mm.data.row_file import RowFile, RowWriter
from unidpo_mm.data.row_table import RowTable
from unidpo_mm.errors import DataError
from unidpo_mm.records import PreferenceRow

ROWS = 40


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "BATCH", 7)
    monkeypatch.setattr(row_store, "MAX_ROWS", 10)
    monkeypatch.setattr(content, "SETTLED_NS", 0)


@pytest.fixture
def source(tmp_path: Path) -> SourceOptions:
    rows = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": "bad"} for n in range(ROWS)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return SourceOptions(path=str(path))


def folders() -> list[Path]:
    """Return all directories of rows in the cache, also incomplete ones."""
    return [path for path in (cache_directory(None) / "data").glob("*") if path.is_dir()]


def texts(rows: Any) -> list[str]:
    return [row.responses[0].text for row in rows]


EXPECTED = [f"good {number}" for number in range(ROWS)]


def kill_while_writing(source: SourceOptions) -> None:
    """Read a source in a process that is killed when it has written 14 rows."""

    class Killed(RowWriter):
        def _write(self) -> None:
            super()._write()
            if self.rows >= 14:
                os.kill(os.getpid(), signal.SIGKILL)

    def read() -> None:
        vars(row_store)["RowWriter"] = Killed  # in the forked process only
        read_sources([source])

    assert run_forked(read).signal == signal.SIGKILL


def test_the_start_after_a_killed_one_reads_all_rows_and_removes_the_rest(
    source: SourceOptions,
) -> None:
    kill_while_writing(source)
    assert len(folders()) == 1
    assert texts(read_sources([source]).rows) == EXPECTED
    assert [path.name[0] == "." for path in folders()] == [False]


def test_commands_show_and_remove_what_a_killed_process_left(source: SourceOptions) -> None:
    for command in ("verify", "prune"):
        kill_while_writing(source)
        assert "cannot be read" in run_command("cache", "info").output
        assert "has ended" in run_command("cache", "verify", "--dry-run").output
        assert len(folders()) == 1
        run_command("cache", command)
        assert folders() == []


def test_files_that_are_in_use_are_not_removed(tmp_path: Path) -> None:
    first = StagingFolder(tmp_path)
    second = StagingFolder(tmp_path)
    assert first.path.is_dir()
    run_forked(lambda: (StagingFolder(tmp_path), gc.collect()))  # it does not own the first ones
    assert first.path.is_dir()
    assert second.path.is_dir()
    first.remove()
    assert not first.path.exists()


def test_files_of_other_machines_are_removed_later(tmp_path: Path) -> None:
    other = tmp_path / ".other-machine-1.part"
    other.mkdir()
    StagingFolder(tmp_path)
    assert other.is_dir()
    week_ago = other.stat().st_mtime - OTHER_MACHINE_S - 1
    os.utime(other, (week_ago, week_ago))
    StagingFolder(tmp_path)
    assert not other.exists()


def test_an_interrupted_start_leaves_no_files(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = load.SourceReader._select_pairs

    def interrupted(reader: Any, row: PreferenceRow) -> None:
        if len(reader.spool) == 30:
            raise KeyboardInterrupt
        select(reader, row)

    monkeypatch.setattr(load.SourceReader, "_select_pairs", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        read_sources([source])
    assert caught.traceback  # which keeps the reader
    assert folders() == []


def test_rows_that_later_starts_cannot_use_are_removed_with_their_table(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "SETTLED_NS", 10**15)  # the file was changed just now
    rows: Any = read_sources([source]).rows.take(range(3))  # type: ignore[attr-defined] # a RowTable
    gc.collect()
    assert len(folders()) == 1
    assert texts(rows) == EXPECTED[:3]
    del rows
    gc.collect()
    assert folders() == []


@pytest.fixture
def limit_file_size() -> Iterator[Any]:
    """Let writing beyond a size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_all_rows_in_memory(
    source: SourceOptions, limit_file_size: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(read_sources([source]).rows, RowTable)
    size = (folders()[0] / row_files.ROWS_FILE).stat().st_size
    run_command("cache", "prune", "--days", "0")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    for limit in (0, 100, size // 2, size - 2000, size - 1):
        limit_file_size(limit)
        loaded = read_sources([source])
        limit_file_size(unlimited)
        assert isinstance(loaded.rows, list), limit
        assert texts(loaded.rows) == EXPECTED, limit
        assert folders() == []
        assert "all rows are kept in memory" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", ["write_checksums", "RowFile"])
def test_a_full_disk_at_the_end_keeps_all_rows_in_memory(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(row_store, name, full)
    assert texts(read_sources([source]).rows) == EXPECTED
    assert folders() == []


def test_a_failed_move_keeps_all_rows_in_memory(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert texts(read_sources([source]).rows) == EXPECTED
    assert folders() == []


def test_two_processes_may_write_the_same_rows(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_sources([source])
    monkeypatch.setattr(load, "open_rows", lambda key, source: None)  # the other was not finished
    rows = read_sources([source]).rows
    assert isinstance(rows, RowTable)
    assert texts(rows) == EXPECTED
    assert len(folders()) == 1


def test_a_changed_byte_is_reported(source: SourceOptions) -> None:
    rows = read_sources([source]).rows
    path = folders()[0] / row_files.ROWS_FILE
    content = path.read_bytes()
    place = content.index(b"good 20")
    path.write_bytes(content[:place] + b"G" + content[place + 1 :])
    assert f"{row_files.ROWS_FILE} changed" in run_command("cache", "verify", "--dry-run").output
    path.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
    rows = read_sources([source]).rows
    with pytest.raises(DataError, match=r"row 21 of the cached rows is damaged.*cache verify"):
        list(rows)
    run_command("cache", "verify")
    assert folders() == []
    assert texts(read_sources([source]).rows) == EXPECTED
    assert f"{ROWS} entries intact" in run_command("cache", "verify").output


@pytest.mark.parametrize("name", [row_files.CONTENT_FILE, row_files.REPORT_FILE])
def test_other_damaged_files_are_reported(source: SourceOptions, name: str) -> None:
    rows: Any = read_sources([source]).rows
    rows.digests()
    path = folders()[0] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"{name} changed" in run_command("cache", "verify", "--dry-run").output


def test_files_are_kept_if_this_process_cannot_open_them(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> RowFile:
        raise OSError(errno.EMFILE, "Too many open files")

    read_sources([source])
    [folder] = folders()
    with monkeypatch.context() as patch:
        patch.setattr(row_store, "RowFile", refused)
        assert texts(read_sources([source]).rows) == EXPECTED
    assert folders() == [folder]


def test_stores_are_listed_while_a_file_is_replaced(source: SourceOptions) -> None:
    read_sources([source])
    (folders()[0] / ".temporary.part").symlink_to("removed")
    assert f"{ROWS} rows" in run_command("cache", "info").output


def test_only_rows_with_the_same_id_are_read(
    source: SourceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Path(source.path).read_text().splitlines()
    lines[5] = lines[30] = '{"id": "same", "prompt": "q", "chosen": "a", "rejected": "b"}'
    Path(source.path).write_text("\n".join(lines))
    numbers: list[int] = []
    get_row = RowFile.__getitem__

    def counted(rows: RowFile, index: int) -> Any:
        numbers.append(index)
        return get_row(rows, index)

    monkeypatch.setattr(RowFile, "__getitem__", counted)
    assert len(read_sources([source]).problems) == 1
    assert numbers == [5, 30]
