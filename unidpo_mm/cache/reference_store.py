"""Reference log-probabilities on disk: one SQLite file for each reference.

SQLite gives what a cache of several processes needs: an entry is there whole or not at all, whoever
is killed and whenever, and two processes may write at once. Every entry carries a checksum, so a
file that a disk has damaged gives no wrong number.
"""

import contextlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Problem, UniDPOError
from .folder import cache_folder

__all__ = ["ReferenceStore", "StoreInfo", "drop_damaged", "open_stores", "references_folder"]

SUFFIX = ".sqlite"
WAIT_S = 120.0
"""How long one process waits for another one's write."""

TABLES = """
create table if not exists logps (key text primary key, value blob not null, crc integer not null);
create table if not exists about (name text primary key, value text not null);
"""

MISSING_AT_A_TIME = 500
"""Keys asked for in one query; SQLite limits them."""


def references_folder(folder: Path | None = None) -> Path:
    """Returns the folder of all stores, inside the cache folder."""
    return cache_folder(folder) / "references"


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        path: The file.
        model: Whose log-probabilities they are.
        settings: Formats, kernels and versions they were computed with.
        entries: How many answers.
        size: Bytes on disk.
        used: Seconds since the epoch of the last use.
    """

    path: Path
    model: str
    settings: Mapping[str, Any]
    entries: int
    size: int
    used: float


class ReferenceStore:
    """The log-probabilities of one reference, by the keys of answers.

    Args:
        fingerprint: Digest of the reference's weights and settings; names the file.
        about: What to write into a new file, for people: model and settings.
        folder: Folder of stores; None for the one in the cache folder.

    Raises:
        UniDPOError: If the file cannot be opened.
    """

    def __init__(
        self, fingerprint: str, about: Mapping[str, Any], *, folder: Path | None = None
    ) -> None:
        place = folder or references_folder()
        self.path = place / f"{fingerprint}{SUFFIX}"
        with _explained(self.path):
            place.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
            self._connection.executescript(TABLES)
            described = {**about, "used": time.time()}
            rows = [(name, json.dumps(value, default=str)) for name, value in described.items()]
            with self._connection:
                self._connection.executemany("insert or replace into about values (?, ?)", rows)

    def get(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Returns what is there of some keys; a damaged entry is not there.

        Returns:
            key -> float32 log-probabilities of the answer's tokens.
        """
        found = {}
        with _explained(self.path):
            for start in range(0, len(keys), MISSING_AT_A_TIME):
                asked = keys[start : start + MISSING_AT_A_TIME]
                marks = ", ".join("?" * len(asked))
                query = f"select key, value, crc from logps where key in ({marks})"
                for key, value, crc in self._connection.execute(query, asked):
                    if zlib.crc32(value) == crc:
                        found[key] = torch.frombuffer(bytearray(value), dtype=torch.float32)
        return found

    def put(self, entries: Mapping[str, Tensor]) -> None:
        """Writes entries, all or none.

        Raises:
            UniDPOError: If they cannot be written, for example because the disk is full.
        """
        rows = []
        for key, logps in entries.items():
            value = logps.detach().to("cpu", torch.float32).numpy().tobytes()
            rows.append((key, value, zlib.crc32(value)))
        with _explained(self.path), self._connection:
            self._connection.executemany("insert or replace into logps values (?, ?, ?)", rows)

    def clear(self) -> None:
        """Removes every entry."""
        with _explained(self.path), self._connection:
            self._connection.execute("delete from logps")

    def __len__(self) -> int:
        (count,) = self._connection.execute("select count(*) from logps").fetchone()
        return int(count)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def open_stores(folder: Path | None = None) -> Iterator[tuple[Path, StoreInfo | None]]:
    """Yields every store of a folder with what it holds; None for one that cannot be read."""
    for path in sorted((folder or references_folder()).glob(f"*{SUFFIX}")):
        try:
            with contextlib.closing(_connect(path)) as connection:
                about = dict(connection.execute("select name, value from about").fetchall())
                (entries,) = connection.execute("select count(*) from logps").fetchone()
        except sqlite3.DatabaseError:
            yield path, None
            continue
        told = {name: json.loads(value) for name, value in about.items()}
        yield (
            path,
            StoreInfo(
                path=path,
                model=told.get("model", "?"),
                settings=told.get("settings", {}),
                entries=entries,
                size=path.stat().st_size,
                used=told.get("used", 0.0),
            ),
        )


def drop_damaged(path: Path) -> int:
    """Removes the entries of a store whose checksum is wrong; returns how many."""
    with _explained(path), contextlib.closing(_connect(path)) as connection, connection:
        entries = connection.execute("select key, value, crc from logps")
        damaged = [(key,) for key, value, crc in entries if zlib.crc32(value) != crc]
        connection.executemany("delete from logps where key = ?", damaged)
    return len(damaged)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT_S)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        remedy = (
            "Make room or point UNIDPO_MM_CACHE to another disk, finished entries are kept; if the "
            "file is damaged, unidpo-mm cache verify removes what cannot be read"
        )
        raise UniDPOError(
            Problem(str(path), f"the cache cannot be used: {error}", remedy)
        ) from None
