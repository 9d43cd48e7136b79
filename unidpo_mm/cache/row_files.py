"""Directories with the rows of a source, which one start has read and the next ones open.

Each directory has the rows as bytes and their columns in an Arrow file, which is mapped into
memory, so that rows take no memory until they are used. A directory appears when it is complete,
with checksums of its files.
"""

import contextlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from .directory import cache_directory
from .staging import StagingFolder, abandoned_folders
from .stores import StoreCheck, StoreInfo

__all__ = [
    "CONTENT_FILE",
    "MEDIA_FILE",
    "REPORT_FILE",
    "ROWS_FILE",
    "list_row_files",
    "open_table",
    "row_folder",
    "staging_folder",
    "verify_row_files",
    "write_checksums",
]

ROWS_FILE = "rows.arrow"
MEDIA_FILE = "media.arrow"
REPORT_FILE = "report.json"
CONTENT_FILE = "content.npz"
"""Digests of the rows, which are replaced when media change; ZIP files have their own checksums."""

CHECKSUM_FILE = "crc32.json"
"""Checksums of the files that do not change."""

CHUNK = 1 << 20


def row_folder(fingerprint: str, cache: Path | None = None) -> Path:
    """Return the directory of the rows with a fingerprint."""
    return _parent(cache) / fingerprint


def staging_folder(cache: Path | None = None) -> StagingFolder:
    """Return a new directory to write rows into.

    Raises:
        OSError: If it cannot be created.
    """
    return StagingFolder(_parent(cache))


def write_checksums(folder: Path) -> None:
    """Write the checksums of the files in a directory of rows."""
    checksums = {name: _checksum(folder / name) for name in (ROWS_FILE, MEDIA_FILE, REPORT_FILE)}
    (folder / CHECKSUM_FILE).write_text(json.dumps(checksums), encoding="utf-8")


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
    """Return every directory of rows in a cache directory; None for the default one.

    A directory whose process was killed while it wrote is one that cannot be read.
    """
    stores = []
    for folder in _folders(cache):
        try:
            entries = _count_rows(folder)
        except (OSError, ValueError, pa.ArrowException):
            entries = None
        files = list(_statuses(folder))
        size = sum(file.st_size for file in files)
        used = max((file.st_mtime for file in files), default=0.0)
        stores.append(StoreInfo(path=folder, kind="data", entries=entries, size=size, used=used))
    return stores


def verify_row_files(cache: Path | None = None, *, dry_run: bool = False) -> Iterator[StoreCheck]:
    """Read every directory of rows, and remove damaged and incomplete ones."""
    for folder in _folders(cache):
        try:
            _check_content(folder)
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


def _check_content(folder: Path) -> None:
    """Compare the files in a directory of rows with their checksums.

    Raises:
        OSError, ValueError: If a file is missing or damaged.
    """
    if folder.name.startswith("."):
        raise ValueError("the process that wrote it has ended")
    try:
        checksums = json.loads((folder / CHECKSUM_FILE).read_text(encoding="utf-8"))
        damaged = [name for name, value in checksums.items() if value != _checksum(folder / name)]
    except AttributeError as error:
        raise ValueError(f"{CHECKSUM_FILE} is damaged") from error
    try:
        with zipfile.ZipFile(folder / CONTENT_FILE) as file:
            damaged += [] if file.testzip() is None else [CONTENT_FILE]
    except FileNotFoundError:  # it is written when the digests are needed
        pass
    except zipfile.BadZipFile:
        damaged.append(CONTENT_FILE)
    if damaged:
        raise ValueError(f"{', '.join(damaged)} changed since it was written")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a run has just replaced or removed it
            yield file.stat()


def _batches(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    return (reader.get_batch(number) for number in range(reader.num_record_batches))


def _folders(cache: Path | None) -> list[Path]:
    parent = _parent(cache)
    if not parent.is_dir():
        return []
    complete = (path for path in parent.iterdir() if path.is_dir() and path.name[0] != ".")
    return [*sorted(complete), *abandoned_folders(parent)]


def _parent(cache: Path | None) -> Path:
    return cache_directory(cache) / "data"
