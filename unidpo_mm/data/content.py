"""Content hashes of the media in a file of rows, and the digests of its rows.

They are kept in the directory of the rows with the size and times of each media file. A file whose
size and times are the same is not read again.
"""

import contextlib
import hashlib
import logging
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from ..cache.row_files import CONTENT_FILE
from ..cache.stores import replacing
from ..records import ImageRef, PreferenceRow, VideoRef
from .images import in_threads
from .media_keys import UNREADABLE, content_key
from .row_digest import row_digest
from .row_file import RowFile

__all__ = ["FileContent", "RowMediaKeys", "file_content", "stamp"]

logger = logging.getLogger(__name__)

DIGEST_BYTES = 32
KEY_DIGITS = 64
KEY = f"S{KEY_DIGITS}"
NO_STAMP = (-1, -1, -1)
SETTLED_NS = 2 * 10**9
"""Age of a file in nanoseconds from which another change must change its times."""

STAMPED = 1000
"""Number of files whose stamps a thread reads at once; on a network, each takes a while."""


class RowMediaKeys:
    """The content hashes of the media of one row."""

    def __init__(self, row: PreferenceRow, keys: Sequence[str]) -> None:
        # a row may have got other images since the keys were computed
        self._keys = {id(media): key for media, key in zip(row.all_media, keys, strict=False)}

    def key(self, media: ImageRef | VideoRef) -> str:
        """Return the hash of an image or a video of the row."""
        return self._keys.get(id(media)) or content_key(media)


@dataclass(frozen=True)
class FileContent:
    """The content of a file of rows.

    Attributes:
        digests: [N, 32] Digest of each row, see `row_digests`.
        media_keys: [M] Hash of each distinct image or video, as hexadecimal bytes; of those that
            are unreadable, the hash of their unique text.
        unreadable: Number of an unreadable image or video -> that text.
    """

    digests: NDArray[numpy.uint8]
    media_keys: NDArray[numpy.bytes_]
    unreadable: Mapping[int, str]

    def keys_of(self, media: NDArray[Any]) -> list[str]:
        """Return the `MediaKeys.key` of images and videos with these numbers."""
        keys = self.media_keys[media].tolist()
        return [
            self.unreadable.get(number) or key.decode()
            for number, key in zip(media.tolist(), keys, strict=True)
        ]


def stamp(path: str | Path) -> tuple[int, int, int]:
    """Return size and times of a file; -1 for each if they do not identify its content.

    This is so if the file does not exist, or if it was changed just now: two changes may have the
    same times.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 # a Path for each of many images takes longer
    except (OSError, ValueError):
        return NO_STAMP
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED_NS:
        return NO_STAMP
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _stamps(paths: Sequence[str | None]) -> list[tuple[int, int, int]]:
    return [NO_STAMP if path is None else stamp(path) for path in paths]


def file_content(rows: RowFile) -> FileContent:
    """Return the hashes of the media and the digests of the rows in a file.

    Only media that have changed since the last time are read, and only their rows.
    """
    before = _read(rows)
    stamps, keys, unreadable = _media_keys(rows, before)
    changed = keys != before["keys"]
    stale = ~before["digested"]
    if changed.any():
        stale[rows.media.owners[changed[rows.media.values]]] = True
    content = FileContent(before["digests"], keys, unreadable)
    for number in numpy.flatnonzero(stale).tolist():
        row = rows[number]
        digest = row_digest(row, RowMediaKeys(row, content.keys_of(rows.media[number])))
        content.digests[number] = numpy.frombuffer(digest, dtype=numpy.uint8)
    if stale.any() or (stamps != before["stamps"]).any():
        _write(rows, {"keys": keys, "stamps": stamps, "digests": content.digests})
    return content


def _media_keys(
    rows: RowFile, before: Mapping[str, Any]
) -> tuple[NDArray[numpy.int64], NDArray[numpy.bytes_], dict[int, str]]:
    """Return the stamps and keys of media, and the texts of unreadable ones; read what is new."""
    table = rows.media_table
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    paths = columns["path"]
    chunks = (paths[start : start + STAMPED] for start in range(0, len(paths), STAMPED))
    stamps = numpy.array(
        [values for chunk in in_threads(_stamps, chunks) for values in chunk], dtype=numpy.int64
    ).reshape(-1, 3)
    same = (stamps[:, 0] >= 0) & (stamps == before["stamps"]).all(axis=1)
    keys = numpy.where(same, before["keys"], numpy.array(b"", dtype=KEY))
    in_memory = numpy.array([(key or "").encode() for key in columns["key"]], dtype=KEY)
    keys = numpy.where(in_memory != b"", in_memory, keys)
    unreadable = {}
    unknown = numpy.flatnonzero(keys == b"").tolist()
    refs = (rows[columns["row"][number]].all_media[columns["place"][number]] for number in unknown)
    for number, key in zip(unknown, in_threads(content_key, refs), strict=True):
        if len(key) > KEY_DIGITS or key.startswith(UNREADABLE):
            unreadable[number] = key
            stamps[number] = NO_STAMP
            key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        keys[number] = key.encode()
    return stamps, keys, unreadable


def _read(rows: RowFile) -> dict[str, Any]:
    """Return what was kept about the rows; nothing if that is missing or damaged."""
    media = rows.media_table.num_rows
    shapes = {"keys": (media,), "stamps": (media, 3), "digests": (len(rows), DIGEST_BYTES)}
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with numpy.load(rows.folder / CONTENT_FILE, allow_pickle=False) as file:
            content = {name: file[name] for name in shapes}
        if all(content[name].shape == shape for name, shape in shapes.items()):
            return {**content, "digested": numpy.ones(len(rows), dtype=bool)}
    return {
        "keys": numpy.zeros(media, dtype=KEY),
        "stamps": numpy.full((media, 3), -1, dtype=numpy.int64),
        "digests": numpy.zeros((len(rows), DIGEST_BYTES), dtype=numpy.uint8),
        "digested": numpy.zeros(len(rows), dtype=bool),
    }


def _write(rows: RowFile, content: dict[str, Any]) -> None:
    """Keep hashes and digests; a failure is logged, because they can be computed again."""
    try:
        with replacing(rows.folder / CONTENT_FILE) as temporary, temporary.open("wb") as file:
            numpy.savez(file, **content)
    except OSError as error:
        logger.warning("the digests of rows are not saved; the next start reads them: %s", error)
