"""An index of records in files: it holds their positions, and reads a record when it is used."""

import contextlib
import json
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem

__all__ = ["Record", "RecordIndex", "complete_lines"]

Record = dict[str, Any]
"""A record: the object in a line of a file, with its ``id``."""


class RecordIndex(Mapping[str, Record]):
    """The records of several files with one JSON object per line, by id.

    Files may grow while the index is in use. Files are opened only while they are read, so an index
    holds no file handles, and can be used by several threads and in forked processes.
    """

    def __init__(self) -> None:
        self._positions: dict[str, tuple[Path, int]] = {}

    def __getitem__(self, record_id: str) -> Record:
        path, position = self._positions[record_id]
        with path.open("rb") as stream:
            stream.seek(position)
            return _parse(stream.readline(), record_id, path)

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def ids_in(self, path: Path) -> set[str]:
        """Return the ids of the records in a file."""
        return {name for name, (file, _) in self._positions.items() if file == path}

    def values(self) -> ValuesView[Record]:
        """Return the records as a view that reads them one after another."""
        return _Values(self)

    def items(self) -> ItemsView[str, Record]:
        """Return ids and records as a view that reads them one after another."""
        return _Items(self)

    def put(self, record_id: str, path: Path, position: int) -> None:
        """Add or replace a record.

        Args:
            record_id: Its id.
            path: Its file.
            position: Where its line starts, in bytes.
        """
        self._positions[record_id] = path, position

    def discard(self, record_id: str) -> None:
        """Remove a record from the index, if it is there; its line stays in the file."""
        self._positions.pop(record_id, None)

    def lines(self, record_ids: Iterable[str]) -> Iterator[tuple[str, bytes, Record]]:
        """Yield ids, lines and records in the order of the ids; each file is opened once.

        Raises:
            KeyError: If there is no record for an id.
            DataError: If another process changed a file.
        """
        with contextlib.ExitStack() as stack:
            streams: dict[Path, Any] = {}
            for record_id in record_ids:
                path, position = self._positions[record_id]
                if path not in streams:
                    streams[path] = stack.enter_context(path.open("rb"))
                streams[path].seek(position)
                line = streams[path].readline()
                yield record_id, line, _parse(line, record_id, path)


class _Values(ValuesView[Record]):
    _mapping: RecordIndex

    def __iter__(self) -> Iterator[Record]:
        return (record for _, _, record in self._mapping.lines(self._mapping))


class _Items(ItemsView[str, Record]):
    _mapping: RecordIndex

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return ((name, record) for name, _, record in self._mapping.lines(self._mapping))


def complete_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield position in bytes and content of each line, except an incomplete last one."""
    position = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):  # a killed process, or another one that is writing
                return
            yield position, line
            position += len(line)


def _parse(line: bytes, record_id: str, path: Path) -> Record:
    """Return the record of a line, after checking that it is the one of the index."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("id") != record_id:
        text = f"the record of '{record_id}' has moved, because another process changed the file"
        raise DataError(Problem(str(path), text, "Run the command again"))
    return record
