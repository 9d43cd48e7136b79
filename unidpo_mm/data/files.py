"""Reads the records of one file of JSON, JSONL, Parquet or Arrow; a broken line does not end it.

A reader yields (file, row number from 1, record), or a `Problem` in place of the record.
"""

import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import DataError, Problem

__all__ = ["READERS", "ArrowRecord", "Record", "kind_of", "read_file"]

Record = tuple[str, int, Any]


class ArrowRecord(dict[str, Any]):
    """A record of Arrow, in which a key of null may not be in the source.

    All records of an Arrow column have the same keys; those that a record lacks are null.
    """


UNREADABLE = (OSError, EOFError, zlib.error)
"""What is raised where bytes cannot be read, or packed ones are cut or broken."""

MAX_LINE_BYTES = 1 << 27
"""Longest line of a JSONL file, 128 MiB: a row with tens of images inside it is shorter."""
MAX_JSON_BYTES = 4_000_000_000
"""Largest JSON file, unpacked: it is read as a whole and takes several times its size in memory."""
MAX_RATIO = 200
"""How many times its size a `.json.gz` may unpack to, beyond `FREE_BYTES`; text packs 20 times."""
FREE_BYTES = 256_000_000
"""What any `.json.gz` may unpack to."""
BATCH = 1024
"""Rows of a Parquet or Arrow file that are in memory at once."""


def read_file(path: Path) -> Iterator[Record]:
    """Return the records of a file.

    Raises:
        DataError: At once if it is of no known kind, while reading if the rest cannot be read.
    """
    kind = kind_of(path)
    if kind not in READERS:
        problem = f"'{kind}' is no format of data files"
        known = ", ".join(READERS)
        raise DataError(Problem(str(path), problem, f"Give a file of {known}"))
    return READERS[kind](path)


def kind_of(path: Path) -> str:
    """Return the ending of a file's name, with what it was before it was compressed."""
    suffixes = path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]
    return "".join(suffixes).lower()


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _jsonl(path: Path) -> Iterator[Record]:
    try:
        yield from _lines(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(Problem(str(path), f"the file cannot be read ({error})", "Repair the file"))


def _lines(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                text = f"the line is longer than {MAX_LINE_BYTES / 2**20:.0f} MiB"
                remedy = "Write one JSON object per line, large images as files"
                raise DataError(Problem(f"{path} row {number}", text, remedy))
            if not line.strip():
                continue
            try:
                yield str(path), number, _parsed(line)
            except UnicodeDecodeError as error:
                text = f"the line is no UTF-8 ({error.reason} at byte {error.start})"
                problem = Problem(f"{path} row {number}", text, "Write the file as UTF-8")
                yield str(path), number, problem
            except (ValueError, RecursionError) as error:
                text = f"the line is no JSON ({_why(error)})"
                remedy = "Write one JSON object a line"
                yield str(path), number, Problem(f"{path} row {number}", text, remedy)


def _json(path: Path) -> Iterator[Record]:
    try:
        with _opened(path) as file:
            content = _parsed(_whole(file, path))
    except UnicodeDecodeError as error:
        problem = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        raise DataError(Problem(str(path), problem, "Write the file as UTF-8")) from error
    except (ValueError, RecursionError) as error:
        problem = f"the file is no JSON ({_why(error)})"
        remedy = "Write a list of objects, or one object a line in a .jsonl file"
        raise DataError(Problem(str(path), problem, remedy)) from error
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, list):
        problem = f"the file holds {type(content).__name__}"
        raise DataError(Problem(str(path), problem, "Write a list of objects"))
    for number, record in enumerate(content, start=1):
        yield str(path), number, record


def _whole(file: BinaryIO, path: Path) -> bytes:
    """Return the content of a JSON file.

    Raises:
        DataError: If it is too large to be read as a whole.
    """
    limit = MAX_JSON_BYTES
    if path.suffix == ".gz":
        limit = min(limit, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
    content = file.read(limit + 1)
    if len(content) > limit:
        problem = f"the file holds more than {limit // 1_000_000:,} MB of JSON"
        if path.suffix == ".gz":
            problem += f" in {path.stat().st_size / 1e6:,.1f} MB"
        raise DataError(Problem(str(path), problem, "Write one object per line in a .jsonl file"))
    return content


def _parsed(content: bytes) -> Any:
    return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, of which no key may stand twice: one value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' stands twice in an object")
    return found


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return str(error)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from _of_batches(pq.ParquetFile(path).iter_batches(BATCH), path)
    except (pa.ArrowException, OSError) as error:
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Parquet file ({error})", remedy)) from error


def _arrow(path: Path) -> Iterator[Record]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                batches: Iterable[Any] = pa.ipc.open_stream(file)
            except pa.ArrowInvalid:  # the other of the two kinds of Arrow files
                found = pa.ipc.open_file(file)
                batches = map(found.get_batch, range(found.num_record_batches))
            yield from _of_batches(batches, path)
    except (pa.ArrowException, OSError) as error:
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Arrow file ({error})", remedy)) from error


def _of_batches(batches: Iterable[Any], path: Path) -> Iterator[Record]:
    number = 0
    for batch in batches:
        names = batch.schema.names
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            problem = f"the column '{twice[0]}' is there twice"
            raise DataError(Problem(str(path), problem, "Give each column its own name"))
        try:
            records = batch.to_pylist()
        except (ValueError, OverflowError) as error:
            problem = f"a value after row {number} cannot be read ({error})"
            raise DataError(Problem(str(path), problem, "Write the file again")) from error
        for record in records:
            number += 1
            yield str(path), number, ArrowRecord(record)


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".jsonl.gz": _jsonl,
    ".json.gz": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
