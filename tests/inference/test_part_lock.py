"""The lock of a part: a single process writes it, and a killed process does not keep it."""

import contextlib
import errno
import gc
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from unidpo_mm.errors import DataError
from unidpo_mm.inference import part_lock
from unidpo_mm.inference.store import ResponseStore
from unidpo_mm.lock_holder import LockHolder

pytestmark = [
    pytest.mark.filterwarnings("error::ResourceWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(os.name == "nt", reason="sends signals"),
]

OPEN_STORE = """
import sys
from pathlib import Path
from unidpo_mm.inference.store import ResponseStore
store = ResponseStore(Path(sys.argv[1]), {}, overwrite=sys.argv[2] == "overwrite")
store.open(["a"])
store.add([{"id": "a", "response": "1"}])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_lock, "GRACE_S", 0.05)


@contextlib.contextmanager
def another_process(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Open a store in another process, until the context ends."""
    command = [sys.executable, "-c", OPEN_STORE, str(path), "resume"]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def can_be_opened(path: Path, mode: str = "resume") -> bool:
    """Return whether another process can open a store."""
    command = [sys.executable, "-c", OPEN_STORE, str(path), mode]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "another process is writing this file" in done.stderr, done
    return done.returncode == 0


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    with another_process(path) as other:
        with pytest.raises(DataError) as refused:
            ResponseStore(path, {}).open()
        (problem,) = refused.value.problems
        assert problem.where == str(tmp_path / "out.parts" / "0.jsonl")
        holder = f"process {other.pid} on {platform.node()} since 20"
        assert problem.message.startswith(f"another process is writing this file ({holder}")
        assert problem.remedy.startswith("Wait for it to finish, stop it")
        with pytest.raises(DataError, match="another process is writing"):
            ResponseStore(path, {}, overwrite=True)
        ResponseStore(path, {}, rank=1).open()  # another part
        os.kill(other.pid, signal.SIGKILL)
    store = ResponseStore(path, {})
    store.open()
    assert [*store.done] == ["a"]
    assert LockHolder.read(store.parts / "0.holder.json").process == os.getpid()


def test_a_lock_ends_with_the_store(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    store = ResponseStore(path, {})
    store.open()
    assert not can_be_opened(path)
    assert not can_be_opened(path, "overwrite")
    store.close()
    assert not (store.parts / "0.holder.json").exists()
    assert can_be_opened(path)
    store.open()
    assert not can_be_opened(path)
    del store
    gc.collect()
    assert can_be_opened(path, "overwrite")


def test_the_stores_of_a_process_share_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out.jsonl"
    first, second = ResponseStore(path, {}), ResponseStore(path, {})
    first.open()
    monkeypatch.chdir(tmp_path)
    second = ResponseStore(Path("out.jsonl"), {})
    second.open()
    first.close()
    assert not can_be_opened(path)
    second.close()
    assert can_be_opened(path)


def test_a_store_is_locked_again_after_its_lock_was_removed_with_the_parts(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    first, second = ResponseStore(path, {}), ResponseStore(path, {})
    first.open()
    first.merge([])  # and is not closed
    second.open(["a"])
    first.close()
    assert not can_be_opened(path)


def test_a_forked_process_neither_shares_nor_releases_the_lock(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    store = ResponseStore(path, {})
    store.open()
    child = os.fork()
    if not child:
        try:
            ResponseStore(path, {}).open()
        except DataError:
            store.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert not can_be_opened(path)


@pytest.mark.parametrize(("process", "is_refused"), [(None, True), ("running", True),
                                                     ("ended", False)])  # fmt: skip
def test_a_lock_that_survives_its_process_is_taken_over(
    tmp_path: Path, process: str | None, is_refused: bool
):
    """A child process, which does not write, may keep the lock of a process that was killed."""
    store = ResponseStore(tmp_path / "out.jsonl", {})
    store.parts.mkdir()
    if process:
        holder = os.getppid() if process == "running" else ended_process()
        LockHolder(holder, platform.node(), "today").write(store.parts / "0.holder.json")
    with FileLock(store.parts / "0.lock"):
        if is_refused:
            with pytest.raises(DataError, match="another process is writing this file"):
                store.open()
            return
        store.open()
        assert not can_be_opened(store.path)


@pytest.mark.parametrize("error", [(NotImplementedError,), (OSError, errno.ENOLCK, "No locks")])
def test_the_recorded_holder_decides_on_file_systems_without_locks(
    tmp_path: Path, error: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
):
    def unsupported(*_: Any, **__: Any) -> None:
        raise error[0](*error[1:])

    monkeypatch.setattr(part_lock.FileLock, "acquire", unsupported)
    store = ResponseStore(tmp_path / "out.jsonl", {})
    holder_file = store.parts / "0.holder.json"
    store.open()
    store.close()
    LockHolder(os.getppid(), platform.node(), "today").write(holder_file)
    with pytest.raises(DataError, match=f"process {os.getppid()} on .* since today"):
        store.open()
    LockHolder(1, "another-machine", "today").write(holder_file)
    with pytest.raises(DataError, match="process 1 on another-machine"):
        store.open()
    LockHolder(ended_process(), platform.node(), "today").write(holder_file)
    store.open()


def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreadable(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(part_lock.FileLock, "acquire", unreadable)
    with pytest.raises(PermissionError):
        ResponseStore(tmp_path / "out.jsonl", {}).open()


def test_a_holder_that_cannot_be_read_is_unknown(tmp_path: Path):
    path = tmp_path / "holder.json"
    for text in ("", "[]", '{"process": "x"}', json.dumps({"process": 1, "host": "h"})):
        path.write_text(text, encoding="utf-8")
        assert LockHolder.read(path) is None
    holder = LockHolder.current()
    holder.write(path)
    assert LockHolder.read(path) == holder
    assert not holder.has_ended
    LockHolder.current().write(tmp_path / "missing" / "holder.json")  # a lock works without it


def test_a_taken_lock_is_reported_as_timeout_by_filelock(tmp_path: Path):
    """The assumption about the library: other objects of this process do not share its locks."""
    with FileLock(tmp_path / "x.lock"), pytest.raises(Timeout):
        FileLock(tmp_path / "x.lock").acquire(timeout=0)
