"""The rows of a source between starts: many rows are written to disk, and read once.

Few rows stay in memory. If there are more, they are written to the cache directory while they are
read (`row_file.py`), and the next start opens them there, if neither the source nor the way to read
it has changed. Sources with problems are read at every start, so that problems are reported again.
"""

import atexit
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..cache.row_files import publish, row_folder, staging_folder
from ..config import SourceOptions
from ..records import PreferenceRow
from .code_digest import code_digest, package_digest
from .content import NO_STAMP, stamp
from .detect import formats
from .locations import SourceListing
from .row_codec import NotStorable
from .row_file import RowFile, RowWriter
from .row_table import FileRows, RowTable
from .source_report import Loaded, SourceReport

__all__ = ["RowSpool", "open_rows", "source_key"]

logger = logging.getLogger(__name__)

MAX_ROWS = 20_000
"""Number of rows of a source that are kept in memory."""

MAX_BYTES = 256 << 20
"""Bytes of images and videos in memory from which rows are written as well."""

REPORT_FILE = "report.json"


def source_key(
    source: SourceOptions, listing: SourceListing, settings: Sequence[Any]
) -> str | None:
    """Return a digest of a source and of everything that decides how it is read.

    It is `None` if the source cannot be identified, or was changed just now.

    Args:
        source: Options of the source.
        listing: Its files.
        settings: Other values of JSON.
    """
    if listing.files is None:
        return None
    stamps = [(str(path), *stamp(path)) for path in listing.files]
    if any(values[1:] == NO_STAMP for values in stamps):
        return None
    content = {
        "files": stamps,
        "fingerprint": listing.fingerprint,
        "source": source.model_dump(mode="json"),
        "settings": settings,
        "directory": str(Path.cwd()),  # paths may be relative to it
        "code": [package_digest(), sorted(code_digest(item.parse) for item in formats().values())],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def open_rows(key: str | None, source: SourceOptions) -> Loaded | None:
    """Return the rows of a source from an earlier start; `None` if there are none.

    Args:
        key: The `source_key`.
        source: Options of the source.
    """
    if key is None or not (folder := row_folder(key)).is_dir():
        return None
    try:
        content = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        report = SourceReport.from_json(content, source.scores)
        return Loaded(rows=RowTable([FileRows(RowFile(folder))]), reports=[report])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        logger.warning("%s cannot be read and is written again: %s", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


class RowSpool:
    """Collects the rows of a source: in memory, or in a file if there are many.

    Attributes:
        in_memory: Whether all rows have to stay in memory.
    """

    def __init__(self, *, in_memory: bool = False) -> None:
        self.in_memory = in_memory
        self._rows: list[PreferenceRow] = []
        self._bytes = 0
        self._writer: RowWriter | None = None

    def __len__(self) -> int:
        return len(self._rows) if self._writer is None else self._writer.rows

    def append(self, row: PreferenceRow) -> None:
        """Add a row."""
        if self._writer is not None:
            self._write([row])
            return
        self._rows.append(row)
        if self.in_memory:
            return
        contents = (getattr(item, "content", None) for item in row.media)
        self._bytes += sum(len(content) for content in contents if isinstance(content, bytes))
        if len(self._rows) > MAX_ROWS or self._bytes > MAX_BYTES:
            try:
                self._writer = RowWriter(staging_folder())
            except OSError as error:
                logger.warning("all rows are kept in memory: %s", error)
                self.in_memory = True
                return
            rows, self._rows = self._rows, []
            self._write(rows)

    def _write(self, rows: Sequence[PreferenceRow]) -> None:
        """Write rows; if that is impossible, return to memory."""
        assert self._writer is not None
        written = 0
        try:
            for row in rows:
                self._writer.add(row)
                written += 1
        except (NotStorable, OSError) as error:
            if isinstance(error, OSError):
                logger.warning("all rows are kept in memory: %s", error)
            folder = self._writer.folder
            self._writer.finish()
            self._rows = [*RowFile(folder), *rows[written:]]
            shutil.rmtree(folder, ignore_errors=True)
            self._writer, self.in_memory = None, True

    def finish(self, report: SourceReport, key: str | None) -> Sequence[PreferenceRow]:
        """Return the rows.

        Args:
            report: The report, which is kept with rows in a file.
            key: The `source_key` under which later starts may use the rows; `None` to remove them
                when the process ends.
        """
        if self._writer is None:
            return self._rows
        self._writer.finish()
        folder = self._writer.folder
        if key is None:
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        else:
            content = json.dumps(report.to_json())
            (folder / REPORT_FILE).write_text(content, encoding="utf-8")
            publish(folder, row_folder(key))
            folder = row_folder(key)
        return RowTable([FileRows(RowFile(folder))])
