"""Write and read the files of a ledger.

The directory ``ledger`` of a run has one Parquet part per checkpoint interval, named by the last
step in it, and the file `OPEN` with the lines since the last checkpoint. A part is complete before
its checkpoint becomes visible. So a run that resumes from the checkpoint of step N drops the open
file and every later part, and repeats exactly the visits that are missing then.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from ..atomic import sync_directory
from ..errors import DataError, Problem
from .columns import COLUMNS, Column, column_of_term

__all__ = [
    "DIRECTORY",
    "OPEN",
    "LedgerFiles",
    "bytes_of",
    "description_of",
    "later_parts",
    "ledger_directory",
    "read_files",
    "schema_of",
    "table_of",
]

DIRECTORY = "ledger"
"""The directory of a ledger in the output directory of a run."""

OPEN = "open.arrows"
"""The file with the lines since the last part, a stream of Arrow record batches."""

FORMAT_VERSION = 1
PART = re.compile(r"steps-to-(\d+)\.parquet")
TYPES = {
    "text": pa.string(),
    "integer": pa.int32(),
    "number": pa.float64(),
    "flag": pa.bool_(),
}
ORDER = [(name, "ascending") for name in ("step", "rank", "position")]


def schema_of(terms: tuple[str, ...], description: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of a ledger.

    Args:
        terms: The terms of the loss.
        description: What the run records about itself, such as the parameters of its loss; it
            becomes the metadata of every file.
    """
    term_columns = [Column(column_of_term(term), "number", "") for term in terms]
    fields = [(column.name, TYPES[column.kind]) for column in (*COLUMNS, *term_columns)]
    content = json.dumps({"format": FORMAT_VERSION, **description}, sort_keys=True, default=str)
    return pa.schema(fields, metadata={"unidpo_mm": content})


def table_of(schema: pa.Schema, values: Mapping[str, Any]) -> pa.Table:
    """Return lines as a table, with the derived columns.

    Args:
        schema: The schema of the ledger.
        values: Column -> its values, arrays for numbers; NaN means that there is no value. Lines of
            weight 0 are dropped: they are fillers, which keep processes in step.
    """
    columns = dict(values)
    columns["score_margin"] = columns["score_chosen"] - columns["score_rejected"]
    columns["reward_margin"] = columns["reward_chosen"] - columns["reward_rejected"]
    for field in schema:
        if pa.types.is_string(field.type):  # file names, and so ids, may have unpaired surrogates
            texts = [text.encode(errors="backslashreplace") for text in columns[field.name]]
            columns[field.name] = [text.decode() for text in texts]
    arrays = [
        pa.array(columns[field.name], type=field.type, from_pandas=pa.types.is_floating(field.type))
        for field in schema
    ]
    table = pa.table(arrays, schema=schema)
    return table.filter(pa.compute.greater(table["weight"], 0))


def bytes_of(table: pa.Table) -> bytes:
    """Return a table as bytes, to send it to another process."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


class LedgerFiles:
    """The ledger of a running process that writes files.

    Args:
        output_dir: The output directory of the run.
        schema: The schema, see `schema_of`.

    Attributes:
        open_lines: Number of lines since the last part.
    """

    def __init__(self, output_dir: Path, schema: pa.Schema) -> None:
        self.folder = output_dir / DIRECTORY
        self.schema = schema
        self.open_lines = 0
        self._sink: Any = None
        self._writer: Any = None

    def rewind(self, step: int) -> None:
        """Remove the lines of all steps after `step`, which the run repeats."""
        self._close()
        for path in later_parts(self.folder.parent, step):
            path.unlink()
        for path in self.folder.glob(".*.tmp"):
            path.unlink()

    def append(self, content: bytes) -> None:
        """Append lines, see `bytes_of`; they are readable at once, and durable after `commit`."""
        table = pa.ipc.open_stream(content).read_all()
        if not table.num_rows:
            return
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sink = (self.folder / OPEN).open("wb")
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._writer = pa.ipc.new_stream(self._sink, self.schema, options=options)
        self._writer.write_table(table)
        self._sink.flush()
        self.open_lines += table.num_rows

    def commit(self, step: int) -> None:
        """Move the open lines into a part whose last step is `step`, and make it durable."""
        self._close()
        opened = self.folder / OPEN
        if not opened.exists():
            return
        target = self.folder / f"steps-to-{step:09d}.parquet"
        temporary = self.folder / f".{target.name}.tmp"
        with opened.open("rb") as stream:
            table = pa.ipc.open_stream(stream).read_all().sort_by(ORDER)
        with temporary.open("wb") as stream:
            pyarrow.parquet.write_table(table, stream, compression="zstd")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
        opened.unlink()
        sync_directory(self.folder)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
            self._writer = self._sink = None
            self.open_lines = 0


def ledger_directory(path: Path) -> Path:
    """Return the directory of a ledger.

    Args:
        path: The output directory of a run, or the ledger in it.

    Raises:
        DataError: If there is no ledger.
    """
    for folder in (path / DIRECTORY, path):
        if _paths(folder) or (folder / OPEN).is_file():
            return folder
    if not path.is_dir():
        problem = Problem(str(path), "it is not a directory", "Use the output directory of a run")
        raise DataError(problem)
    remedy = "Train with train.ledger=true, and look again after its first log"
    raise DataError(Problem(str(path), "it contains no ledger", remedy))


def later_parts(output_dir: Path, step: int) -> list[Path]:
    """Return the files in the ledger of a run that contain steps after `step`."""
    folder = output_dir / DIRECTORY
    parts = [path for path in _paths(folder) if _last_step(path) > step]
    return [*parts, folder / OPEN] if (folder / OPEN).exists() else parts


def read_files(folder: Path) -> tuple[list[Path], pa.Table | None]:
    """Return the parts of a ledger in the order of their steps, and the lines since the last one.

    The run may be writing: the open file is read first, and lines that have become part of a part
    since then are dropped, so that no line is missing or there twice.
    """
    try:
        batches = list(_open_batches(folder / OPEN))
    except FileNotFoundError:
        batches = []
    paths = _paths(folder)
    if not batches:
        return paths, None
    table = pa.Table.from_batches(batches)
    last = _last_step(paths[-1]) if paths else 0
    table = table.filter(pa.compute.greater(table["step"], last)).sort_by(ORDER)
    return paths, table if table.num_rows else None


def description_of(metadata: Mapping[bytes, bytes] | None, path: Path) -> dict[str, Any]:
    """Return what a run recorded about itself in a file of its ledger.

    Raises:
        DataError: If the file is not part of a ledger, or of another version.
    """
    try:
        content: dict[str, Any] = json.loads((metadata or {})[b"unidpo_mm"])
    except (KeyError, ValueError):
        problem = Problem(str(path), "it is not part of a ledger", "Remove it")
        raise DataError(problem) from None
    if content.get("format") != FORMAT_VERSION:
        text = f"it has format {content.get('format')}, this version reads {FORMAT_VERSION}"
        raise DataError(Problem(str(path), text, "Use the version of unidpo-mm that wrote it"))
    return content


def _open_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the complete batches of a file that a process may still be writing."""
    with path.open("rb") as stream:
        try:
            yield from pa.ipc.open_stream(stream)
        except (pa.ArrowInvalid, OSError, EOFError):
            return


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("steps-to-*.parquet") if PART.fullmatch(path.name))


def _last_step(path: Path) -> int:
    match = PART.fullmatch(path.name)
    assert match is not None  # `_paths` selects by the same pattern
    return int(match[1])
