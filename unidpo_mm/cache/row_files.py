"""Directories with the rows of a source, which one start has read and the next ones open.

Each directory has the rows as bytes and their columns in an Arrow file, which is mapped into
memory, so that rows take no memory until they are used. A directory appears when it is complete.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from .directory import cache_directory
from .stores import PART, StoreCheck, StoreInfo

__all__ = [
    "MEDIA_FILE",
    "ROWS_FILE",
    "list_row_files",
    "open_table",
    "publish",
    "row_folder",
    "staging_folder",
    "verify_row_files",
]

ROWS_FILE = "rows.arrow"
MEDIA_FILE = "media.arrow"


def row_folder(fingerprint: str, cache: Path | None = None) -> Path:
    """Return the directory of the rows with a fingerprint."""
    return _parent(cache) / fingerprint


def staging_folder(cache: Path | None = None) -> Path:
    """Return a new directory to write rows into."""
    parent = _parent(cache)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent, prefix=".", suffix=PART))


def publish(staged: Path, folder: Path) -> None:
    """Move a complete directory to its final name, unless another process was faster."""
    try:
        staged.replace(folder)
    except OSError:
        if not (folder / ROWS_FILE).is_file():
            raise
        shutil.rmtree(staged, ignore_errors=True)


def open_table(path: Path) -> pa.Table:
    """Return the table in an Arrow file, mapped into memory.

    Raises:
        OSError, pa.ArrowException: If the file cannot be read.
    """
    with contextlib.suppress(OSError):
        os.utime(path)  # `unidpo-mm cache prune` uses the time of the last use
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def list_row_files(cache: Path | None = None) -> list[StoreInfo]:
    """Return every directory of rows in a cache directory; None for the default one."""
    stores = []
    for folder in _folders(cache):
        try:
            entries = _count_rows(folder)
        except (OSError, ValueError, pa.ArrowException):
            entries = None
        files = [file.stat() for file in folder.iterdir()]
        size = sum(file.st_size for file in files)
        used = max((file.st_mtime for file in files), default=0.0)
        stores.append(StoreInfo(path=folder, kind="data", entries=entries, size=size, used=used))
    return stores


def verify_row_files(cache: Path | None = None, *, dry_run: bool = False) -> Iterator[StoreCheck]:
    """Open every directory of rows, and remove damaged ones."""
    for folder in _folders(cache):
        try:
            intact, reason = _count_rows(folder), ""
        except (OSError, ValueError, pa.ArrowException) as error:
            intact, reason = 0, str(error)
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
        yield StoreCheck(
            path=folder,
            kind="data",
            intact=intact,
            damaged=None if reason else 0,
            action="intact" if not reason else "damaged" if dry_run else "removed",
            reason=reason,
        )


def _count_rows(folder: Path) -> int:
    """Return the number of rows in a directory, without marking it as used.

    Raises:
        OSError, pa.ArrowException: If a file is missing or damaged.
    """
    with pa.memory_map(str(folder / MEDIA_FILE)) as file:
        pa.ipc.open_file(file)
    with pa.memory_map(str(folder / ROWS_FILE)) as file:
        return sum(batch.num_rows for batch in _batches(pa.ipc.open_file(file)))


def _batches(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    return (reader.get_batch(number) for number in range(reader.num_record_batches))


def _folders(cache: Path | None) -> list[Path]:
    parent = _parent(cache)
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] != ".")


def _parent(cache: Path | None) -> Path:
    return cache_directory(cache) / "data"
