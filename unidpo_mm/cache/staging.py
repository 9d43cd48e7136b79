"""Directories that are being written, until they are complete or their process ends.

A process locks the directories that it writes. The operating system releases the lock when the
process ends, so another process knows which directories are abandoned, and removes them.
"""

import contextlib
import logging
import os
import platform
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..atomic import sync_directory, sync_tree
from .stores import PART

__all__ = ["StagingFolder", "abandoned_folders", "remove_abandoned"]

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
"""Lock of a staging directory, and of the creation and removal of all of them."""

OTHER_MACHINE_S = 7 * 86_400
"""Age in seconds from which a directory of another machine may be removed.

Some network file systems do not share locks between machines.
"""


class StagingFolder:
    """A new directory that only this process writes.

    It is removed with this object, or when the process ends, unless it is published.

    Args:
        parent: Its parent directory, which is created if it does not exist.

    Raises:
        OSError: If it cannot be created.

    Attributes:
        path: The directory.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent):
            remove_abandoned(parent)
            prefix = _machine_prefix()
            self.path = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=PART))
            self._lock = FileLock(self.path / LOCK_FILE, thread_local=False)
            with contextlib.suppress(OSError, NotImplementedError):
                self._lock.acquire(timeout=10)  # `unidpo-mm cache info` may hold it for a moment
        self._finalizer = weakref.finalize(self, _remove, self.path, self._lock, os.getpid())

    def remove(self) -> None:
        """Remove the directory."""
        self._finalizer()

    def publish(self, folder: Path) -> None:
        """Move the complete directory to its final name, unless another process was faster.

        Raises:
            OSError: If that is impossible; then the directory still exists.
        """
        sync_tree(self.path)
        try:
            self.path.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise
            self.remove()
            return
        self._finalizer.detach()
        self._lock.release()
        with contextlib.suppress(OSError):
            (folder / LOCK_FILE).unlink(missing_ok=True)
        sync_directory(folder.parent)


def abandoned_folders(parent: Path) -> list[Path]:
    """Return the staging directories whose processes have ended."""
    return [path for path in sorted(parent.glob(f".*{PART}")) if _is_abandoned(path)]


def remove_abandoned(parent: Path) -> None:
    """Remove the staging directories whose processes have ended."""
    for path in abandoned_folders(parent):
        logger.info("%s is removed: the process that wrote it has ended", path)
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        if not path.name.startswith(_machine_prefix()) and age < OTHER_MACHINE_S:
            return False
        with FileLock(path / LOCK_FILE, timeout=0, thread_local=False):
            return True
    except (OSError, NotImplementedError, Timeout):  # in use, just removed, or without locks
        return False


@contextlib.contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Let one process at a time create or remove staging directories, if locks are supported."""
    lock = FileLock(parent / LOCK_FILE, thread_local=False)
    with contextlib.suppress(NotImplementedError):
        lock.acquire(timeout=60)
    try:
        yield
    finally:
        lock.release()


def _machine_prefix() -> str:
    return f".{platform.node().replace(os.sep, '-')}-"


def _remove(path: Path, lock: FileLock, process: int) -> None:
    if os.getpid() == process:  # a forked process must not remove the directory of its parent
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
