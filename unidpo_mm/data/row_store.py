"""The rows of a source between starts: many rows are written to disk, and read once.

Few rows stay in memory. If there are more, they are written to the cache directory while they are
read (`row_file.py`), and the next start opens them there, if neither the source nor the way to read
it has changed. Sources with problems are read at every start, so that problems are reported again.
"""

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..cache.row_files import REPORT_FILE, row_folder, staging_folder, write_checksums
from ..cache.staging import StagingFolder
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
        if not _is_damage(error):
            logger.warning("%s cannot be read, the source is read again: %s", folder, error)
            return None
        logger.warning("%s cannot be read and is written again: %s", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _is_damage(error: Exception) -> bool:
    """Return whether an error means that a file is damaged or missing.

    Other errors of the system, such as too many open files, concern only this process, and other
    runs may use the files. Arrow reports incomplete files without the number of an error.
    """
    return not isinstance(error, OSError) or error.errno in (None, errno.ENOENT)


class RowSpool:
    """Collects the rows of a source: in memory, or in a file if there are many.

    Attributes:
        in_memory: Whether all rows have to stay in memory.
    """

    def __init__(self, *, in_memory: bool = False) -> None:
        self.in_memory = in_memory
        self._rows: list[PreferenceRow] = []
        self._bytes = 0
        self._staging: StagingFolder | None = None
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
        contents = (getattr(item, "content", None) for item in row.all_media)
        self._bytes += sum(len(content) for content in contents if isinstance(content, bytes))
        if len(self._rows) > MAX_ROWS or self._bytes > MAX_BYTES:
            self._open()

    def _open(self) -> None:
        """Write the rows to a file from now on, if that is possible."""
        try:
            self._staging = staging_folder()
            self._writer = RowWriter(self._staging.path)
        except OSError as error:
            logger.warning("all rows are kept in memory: %s", error)
            self.in_memory = True
            self.close()
            return
        rows, self._rows = self._rows, []
        self._write(rows)

    def _write(self, rows: Sequence[PreferenceRow]) -> None:
        """Write rows; if that is impossible, return to memory."""
        assert self._writer is not None
        before = self._writer.rows
        try:
            for row in rows:
                self._writer.add(row)
        except (NotStorable, OSError) as error:
            self._return_to_memory(rows[self._writer.rows - before :], error)

    def _return_to_memory(self, rest: Sequence[PreferenceRow], error: Exception) -> None:
        """Keep all rows in memory.

        Args:
            rest: The rows that were not added to the writer.
            error: Why they cannot be written.
        """
        assert self._writer is not None
        if isinstance(error, OSError):
            logger.warning("all rows are kept in memory: %s", error)
        self._rows = [*self._writer.recover(), *rest]
        self.in_memory = True
        self.close()

    def close(self) -> None:
        """Remove the files of rows that `finish` has not returned."""
        if self._staging is not None:
            self._staging.remove()
        self._staging = self._writer = None

    def finish(self, report: SourceReport, key: str | None) -> Sequence[PreferenceRow]:
        """Return the rows.

        Args:
            report: The report, which is kept with rows in a file.
            key: The `source_key` under which later starts may use the rows; `None` to remove them
                when they are no longer used.
        """
        if self._writer is None or self._staging is None:
            return self._rows
        folder = self._staging.path
        try:
            self._writer.finish()
            rows = RowFile(folder)
            if key is not None:
                content = json.dumps(report.to_json())
                (folder / REPORT_FILE).write_text(content, encoding="utf-8")
                write_checksums(folder)
                self._staging.publish(row_folder(key))
                rows.folder = row_folder(key)
        except OSError as error:
            self._return_to_memory([], error)
            return self._rows
        if key is None:
            rows.staging = self._staging
        self._staging = self._writer = None
        return RowTable([FileRows(rows)])
