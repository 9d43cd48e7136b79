"""Read the records of a JSON, JSONL, Parquet or Arrow file.

A reader yields (file, row number from 1, record). For an invalid line, it yields a `Problem`
instead of the record and continues.
"""

import contextlib
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import DataError, Problem
from .invalid_value import InvalidValue

__all__ = ["READERS", "ArrowRecord", "Record", "kind_of", "read_file"]

Record = tuple[str, int, Any]


class ArrowRecord(dict[str, Any]):
    """A record of Arrow, in which null may stand for a key that the source does not have.

    All records of an Arrow column have the same keys; the missing ones are null.
    """


UNREADABLE = (OSError, EOFError, zlib.error)
"""Errors of files that cannot be read or decompressed."""

MAX_LINE_BYTES = 1 << 27
"""Maximum length of a line of a JSONL file, 128 MiB; rows with tens of images are shorter."""
MAX_JSON_BYTES = 4_000_000_000
"""Maximum uncompressed size of a JSON file, which takes several times its size in memory."""
MAX_RATIO = 200
"""Maximum compression ratio of a `.json.gz` above `FREE_BYTES`; that of text is about 20."""
FREE_BYTES = 256_000_000
"""Uncompressed size up to which the compression ratio of a `.json.gz` is not checked."""
BATCH = 1024
"""Rows of a Parquet or Arrow file that are decoded at once."""


def read_file(path: Path) -> Iterator[Record]:
    """Return the records of a file.

    Raises:
        DataError: Immediately if the kind of file is not supported, while reading if it cannot be
            read any further.
    """
    kind = kind_of(path)
    if kind not in READERS:
        problem = f"'{kind}' files are not supported"
        raise DataError(Problem(str(path), problem, f"Use one of {', '.join(READERS)}"))
    return READERS[kind](path)


def kind_of(path: Path) -> str:
    """Return the suffix of a file, such as ``.json`` or ``.json.gz``."""
    suffixes = path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]
    return "".join(suffixes).lower()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file that may be compressed; explain errors while it is read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast("BinaryIO", file)
    except UNREADABLE as error:
        problem = f"the file cannot be read ({error})"
        raise DataError(Problem(str(path), problem, "Replace the file")) from error


def _jsonl(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            where = f"{path} row {number}"
            if len(line) > MAX_LINE_BYTES:
                text = f"the line is longer than {MAX_LINE_BYTES / 2**20:.0f} MiB"
                remedy = "Write one JSON object per line, large images as files"
                raise DataError(Problem(where, text, remedy))
            if not line.strip():
                continue
            try:
                record = _parsed(line, "line", "Write one JSON object per line")
            except InvalidValue as error:
                record = Problem(where, error.message, error.remedy)
            yield str(path), number, record


def _json(path: Path) -> Iterator[Record]:
    remedy = "Write a list of objects, or one object per line in a .jsonl file"
    try:
        with _opened(path) as file:
            content = _parsed(_read_limited(file, path), "file", remedy)
    except InvalidValue as error:
        raise DataError(Problem(str(path), error.message, error.remedy)) from error
    if not isinstance(content, list):
        problem = f"the file contains {type(content).__name__}, not a list"
        raise DataError(Problem(str(path), problem, "Write a list of objects"))
    for number, record in enumerate(content, start=1):
        yield str(path), number, record


def _read_limited(file: BinaryIO, path: Path) -> bytes:
    """Return the content of a JSON file that is not too large."""
    limit = MAX_JSON_BYTES
    if path.suffix == ".gz":
        limit = min(limit, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
    content = file.read(limit + 1)
    if len(content) > limit:
        problem = f"the file contains more than {limit // 1_000_000:,} MB of JSON"
        if path.suffix == ".gz":
            problem += f" in {path.stat().st_size / 1e6:,.1f} MB"
        raise DataError(Problem(str(path), problem, "Write one object per line in a .jsonl file"))
    return content


def _parsed(content: bytes, subject: str, remedy: str) -> Any:
    """Return the value of the JSON text of a `subject`, a line or a file."""
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        problem = f"the {subject} is not valid UTF-8 ({error.reason} at byte {error.start})"
        raise InvalidValue(problem, "Write the file as UTF-8") from error
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise InvalidValue(f"the {subject} is not valid JSON ({reason})", remedy) from error
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"the {subject} is not valid JSON ({error})", remedy) from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; refuse duplicate keys, which would lose all values but the last."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key '{duplicate}' in an object")
    return unique


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow.parquet as pq

    yield from _table_records(lambda: pq.ParquetFile(path).iter_batches(BATCH), path, "Parquet")


def _arrow(path: Path) -> Iterator[Record]:
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        with pa.memory_map(str(path)) as file:
            try:
                reader = pa.ipc.open_stream(file)
            except pa.ArrowInvalid:  # the other kind of Arrow file
                reader = pa.ipc.open_file(file)
                reader = map(reader.get_batch, range(reader.num_record_batches))
            yield from reader

    yield from _table_records(batches, path, "Arrow")


def _table_records(
    open_batches: Callable[[], Iterator[Any]], path: Path, kind: str
) -> Iterator[Record]:
    import pyarrow as pa

    number = 0
    try:
        for batch in open_batches():
            names = batch.schema.names
            duplicates = [name for name in names if names.count(name) > 1]
            if duplicates:
                problem = f"duplicate column '{duplicates[0]}'"
                raise DataError(Problem(str(path), problem, "Rename one of the columns"))
            try:
                records = batch.to_pylist()
            except (ValueError, OverflowError) as error:
                problem = f"a value after row {number} cannot be read ({error})"
                raise DataError(Problem(str(path), problem, "Write the file again")) from error
            for record in records:
                number += 1
                yield str(path), number, ArrowRecord(record)
    except (pa.ArrowException, OSError) as error:
        problem = f"not a valid {kind} file ({error})"
        raise DataError(Problem(str(path), problem, "Write the file again")) from error


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".jsonl.gz": _jsonl,
    ".json.gz": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
