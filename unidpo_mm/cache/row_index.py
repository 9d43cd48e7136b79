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

import numpy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .directory import cache_directory
from .stores import StoreCheck, StoreInfo, replacing

__all__ = [
    "NUMBERS",
    "RowIndex",
    "add_rows",
    "index_path",
    "list_row_indexes",
    "read_index",
    "verify_row_indexes",
]

logger = logging.getLogger(__name__)

SUFFIX = ".parquet"

NUMBERS = (
    *("prompt", "images", "videos", "pairs"),
    *("truncated", "shrunk", "shortened", "identical"),
)
KEY_BYTES = 32
KEY_WORDS = KEY_BYTES // 8
"""64-bit words of a digest."""

COLUMNS = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("responses", pa.list_(pa.int32())),
        *((name, pa.int32()) for name in NUMBERS),
    ]
)
"""The digest of a row, and the fields of `data.measure.MeasuredRow`."""


def index_path(fingerprint: str, cache: Path | None = None) -> Path:
    """Return the file of an index."""
    return _folder(cache) / f"{fingerprint}{SUFFIX}"


class RowIndex:
    """The measurements of rows by the digests of the rows.

    Attributes:
        columns: Measurement -> the value of each row of the index; the lengths of responses are in
            `offsets` and `lengths`.
        offsets, lengths: The responses of row `n` have `lengths[offsets[n]:offsets[n + 1]]` tokens.
    """

    def __init__(self, table: pa.Table) -> None:
        keys, lists = _array(table, "key"), _array(table, "responses")
        content = numpy.frombuffer(keys.buffers()[1] or b"", dtype=numpy.uint8)
        content = content[keys.offset * KEY_BYTES :][: len(keys) * KEY_BYTES]
        self._keys = numpy.ascontiguousarray(content).view(numpy.uint64).reshape(-1, KEY_WORDS)
        self._order = numpy.argsort(self._keys[:, 0], kind="stable")
        self._first = self._keys[self._order, 0]
        self.columns = {name: table.column(name).to_numpy() for name in NUMBERS}
        offsets = lists.offsets.to_numpy().astype(numpy.int64)
        self.offsets, self.lengths = offsets - offsets[0], lists.flatten().to_numpy()

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: NDArray[numpy.uint8]) -> NDArray[numpy.int64]:
        """Return where each key is in the index; -1 if the index does not have it.

        Args:
            keys: [N, 32] Digests of rows.
        """
        words = numpy.ascontiguousarray(keys).view(numpy.uint64).reshape(-1, KEY_WORDS)
        result = numpy.full(len(words), -1, dtype=numpy.int64)
        place = numpy.searchsorted(self._first, words[:, 0])
        searched = numpy.flatnonzero(place < len(self))
        while len(searched):  # once, unless keys have the same beginning
            place_of = place[searched]
            searched = searched[self._first[place_of] == words[searched, 0]]
            candidates = self._order[place[searched]]
            equal = (self._keys[candidates] == words[searched]).all(axis=1)
            result[searched[equal]] = candidates[equal]
            searched = searched[~equal]
            place[searched] += 1
            searched = searched[place[searched] < len(self)]
        return result


def _array(table: pa.Table, name: str) -> Any:
    chunks = table.column(name).chunks
    return pa.concat_arrays(chunks) if chunks else pa.array([], COLUMNS.field(name).type)


def read_index(path: Path) -> RowIndex:
    """Return an index; it is empty if the file is missing or damaged."""
    return RowIndex(_readable(path))


def add_rows(path: Path, rows: Mapping[bytes, Mapping[str, Any]]) -> None:
    """Add rows to an index, and keep those that another process has added meanwhile.

    A failure to write is logged: the rows can be encoded again.
    """
    columns: dict[str, Sequence[Any]] = {"key": list(rows)}
    for name in ("responses", *NUMBERS):
        columns[name] = [row[name] for row in rows.values()]
    added = pa.Table.from_pydict(columns, schema=COLUMNS)
    before = _readable(path)
    kept = before.filter(pc.invert(pc.is_in(before.column("key"), added.column("key"))))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            pq.write_table(pa.concat_tables([kept, added]), temporary, compression="zstd")
    except OSError as error:
        logger.warning("the index of rows is not saved; the next start encodes them: %s", error)


def _readable(path: Path) -> pa.Table:
    """Return the table in a file; an empty one if it is missing or damaged."""
    try:
        table = _read(path)
    except FileNotFoundError:
        return COLUMNS.empty_table()
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s cannot be read and is written again: %s", path, error)
        return COLUMNS.empty_table()
    with contextlib.suppress(OSError):
        os.utime(path)  # `unidpo-mm cache prune` uses the time of the last use
    return table


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


def _read(path: Path) -> pa.Table:
    return pq.read_table(path, schema=COLUMNS)


def _folder(cache: Path | None) -> Path:
    return cache_directory(cache) / "rows"
