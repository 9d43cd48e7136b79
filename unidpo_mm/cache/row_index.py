"""Row indexes on disk: the measurements of encoded rows by the content of the rows.

One Parquet file for each way to encode rows, replaced as a whole, so that a killed process leaves
either the old or the new one.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .directory import cache_directory
from .stores import StoreCheck, StoreInfo, replacing

__all__ = ["add_rows", "index_path", "list_row_indexes", "read_rows", "verify_row_indexes"]

logger = logging.getLogger(__name__)

SUFFIX = ".parquet"

NUMBERS = (
    *("prompt", "images", "videos", "pairs"),
    *("truncated", "shrunk", "shortened", "identical"),
)
COLUMNS = pa.schema(
    [
        ("key", pa.binary(32)),
        ("responses", pa.list_(pa.int32())),
        *((name, pa.int32()) for name in NUMBERS),
    ]
)
"""The digest of a row, and the fields of `data.measure.MeasuredRow`."""


def index_path(fingerprint: str, cache: Path | None = None) -> Path:
    """Return the file of an index."""
    return _folder(cache) / f"{fingerprint}{SUFFIX}"


def read_rows(path: Path) -> dict[bytes, dict[str, Any]]:
    """Return the measurements of each row by its key; none if the file is missing or damaged."""
    try:
        content = _read(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s cannot be read and is written again: %s", path, error)
        return {}
    with contextlib.suppress(OSError):
        os.utime(path)  # `unidpo-mm cache prune` uses the time of the last use
    return content


def add_rows(path: Path, rows: Mapping[bytes, Mapping[str, Any]]) -> None:
    """Add rows to an index, and keep those that another process has added meanwhile.

    A failure to write is logged: the rows can be encoded again.
    """
    merged = {**read_rows(path), **rows}
    columns: dict[str, Sequence[Any]] = {"key": list(merged)}
    for name in ("responses", *NUMBERS):
        columns[name] = [row[name] for row in merged.values()]
    table = pa.Table.from_pydict(columns, schema=COLUMNS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    except OSError as error:
        logger.warning("the index of rows is not saved; the next start encodes them: %s", error)


def list_row_indexes(cache: Path | None = None) -> list[StoreInfo]:
    """Return every row index of a cache directory; None for the default one."""
    stores = []
    for path in sorted(_folder(cache).glob(f"*{SUFFIX}")):
        try:
            entries = pq.read_metadata(path).num_rows
        except (OSError, ValueError, pa.ArrowException):
            entries = None
        size, used = path.stat().st_size, path.stat().st_mtime
        stores.append(StoreInfo(path=path, kind="rows", entries=entries, size=size, used=used))
    return stores


def verify_row_indexes(cache: Path | None = None, *, dry_run: bool = False) -> Iterator[StoreCheck]:
    """Read every row index and remove damaged ones."""
    for path in sorted(_folder(cache).glob(f"*{SUFFIX}")):
        try:
            intact, reason = len(_read(path)), ""
        except (OSError, ValueError, pa.ArrowException) as error:
            intact, reason = 0, str(error)
            if not dry_run:
                path.unlink(missing_ok=True)
        yield StoreCheck(
            path=path,
            kind="rows",
            intact=intact,
            damaged=None if reason else 0,
            action="intact" if not reason else "damaged" if dry_run else "removed",
            reason=reason,
        )


def _read(path: Path) -> dict[bytes, dict[str, Any]]:
    columns = pq.read_table(path, schema=COLUMNS).to_pydict()
    keys = columns.pop("key")
    columns["responses"] = [tuple(lengths) for lengths in columns["responses"]]
    rows = zip(*columns.values(), strict=True)
    return {key: dict(zip(columns, row, strict=True)) for key, row in zip(keys, rows, strict=True)}


def _folder(cache: Path | None) -> Path:
    return cache_directory(cache) / "rows"
