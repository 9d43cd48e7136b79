"""Atomic writing of files: after a crash, a file has either its old or its new content."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacement", "sync_directory", "sync_tree", "umask", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file in one step.

    Args:
        path: The file; its directory must exist.
        text: The new content, written as UTF-8.

    Raises:
        OSError: If the content cannot be written. The old file is then unchanged.
    """
    with replacement(path) as stream:
        stream.write(text.encode())


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces a file in one step, unless there is an error.

    Args:
        path: The file; its directory must exist.

    Raises:
        OSError: If the content cannot be written. The old file is then unchanged.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(_mode(path))  # mkstemp creates files that only their owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(folder: Path) -> None:
    """Make the names in a directory durable, if the system supports it."""
    with contextlib.suppress(OSError):  # some file systems cannot open a directory
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make all files below a directory durable, with their names."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_directory(path)
            continue
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_directory(folder)


def _mode(path: Path) -> int:
    """Return the permissions of a file, or those of a new file."""
    return path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask()


def umask() -> int:
    """Return the permission bits that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
