"""The lock of a part file: only the stores of a single process append to it.

It is a lock of the operating system, which releases it when the process ends, even if it is killed.
On file systems without locks, the recorded holder decides.
"""

import contextlib
import errno
import os
import weakref
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import DataError, Problem
from ..lock_holder import LockHolder

__all__ = ["PartLock", "hold_part"]

GRACE_S = 1.0
"""Seconds to wait for a lock whose recorded holder has ended.

Either the new holder is not recorded yet, or a child process of the old one still has the lock.
"""

UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""Error numbers of file systems without locks."""


class PartLock:
    """The lock of a part file, held until the last reference to this object is dropped.

    Args:
        part: The part file, whose directory must exist.

    Raises:
        DataError: If another process holds the lock.
    """

    def __init__(self, part: Path) -> None:
        self.part = part
        self.path, self.holder_file = part.with_suffix(".lock"), part.with_suffix(".holder.json")
        self._lock = FileLock(self.path, thread_local=False)  # any thread may release it
        self._acquire()
        self.path.touch()
        self._stat = self.path.stat()
        holder = LockHolder.current()
        holder.write(self.holder_file)
        weakref.finalize(self, _release, self._lock, holder, self.holder_file)

    @property
    def is_current(self) -> bool:
        """Whether the lock file still exists; merging removes it with the parts."""
        try:
            return os.path.samestat(self._stat, self.path.stat())
        except FileNotFoundError:
            return False

    def _acquire(self) -> None:
        for wait_s in (0.0, GRACE_S):
            try:
                self._lock.acquire(timeout=wait_s)
            except Timeout:
                self._refuse_unless_ended(LockHolder.read(self.holder_file))
            except (OSError, NotImplementedError) as error:
                if not _is_unsupported(error):
                    raise
                if holder := LockHolder.read(self.holder_file):
                    self._refuse_unless_ended(holder)
                return
            else:
                return
        self._take_over()

    def _take_over(self) -> None:
        """Replace a lock that a child of its ended holder, which does not write, still has."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise self._refusal(LockHolder.read(self.holder_file)) from None

    def _refuse_unless_ended(self, holder: LockHolder | None) -> None:
        if holder is None or not holder.has_ended:
            raise self._refusal(holder) from None

    def _refusal(self, holder: LockHolder | None) -> DataError:
        text = "another process is writing this file" + (f" ({holder})" if holder else "")
        remedy = "Wait for it to finish, stop it, or use another directory"
        return DataError(Problem(str(self.part), text, remedy))


_HELD: weakref.WeakValueDictionary[tuple[int, Path], PartLock] = weakref.WeakValueDictionary()
"""The locks that this process holds; forked processes inherit the entries, but not the locks."""


_INHERITED: list[FileLock] = []
"""Locks of the parent of a forked process, which some versions of filelock release if dropped."""


def hold_part(part: Path) -> PartLock:
    """Return the lock of a part file, which all stores of this process share.

    Raises:
        DataError: If another process holds the lock.
    """
    key = (os.getpid(), part.absolute())
    lock = _HELD.get(key)
    if lock is None or not lock.is_current:
        lock = _HELD[key] = PartLock(part)
    return lock


def _release(lock: FileLock, holder: LockHolder, holder_file: Path) -> None:
    if os.getpid() != holder.process:
        _INHERITED.append(lock)
        return
    if LockHolder.read(holder_file) == holder:
        with contextlib.suppress(OSError):
            holder_file.unlink()
    lock.release()


def _is_unsupported(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or (
        isinstance(error, OSError) and error.errno in UNSUPPORTED
    )
