"""Log-probs of a reference on disk: one SQLite file per reference.

SQLite provides what a cache that several processes share needs: an entry is complete or missing,
whenever a process is killed, and two processes may write at the same time. Every entry has a
checksum, so a file that a disk has damaged returns no wrong values.
"""

import contextlib
import dataclasses
import itertools
import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import Problem, UniDPOError
from .directory import cache_directory
from .stores import Action, StoreCheck, StoreInfo

__all__ = [
    "ReferenceStore",
    "list_references",
    "remove_store",
    "verify_references",
    "verify_store",
]

SUFFIX = ".sqlite"
WAIT_S = 120.0
"""Maximum number of seconds to wait for another process that writes."""

TABLES = """
create table if not exists logps (key text primary key, value blob not null, crc integer not null);
create table if not exists about (name text primary key, value text not null);
"""

NOT_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
    }
)
"""Errors of a file that is in use, without permission, or on a full or failing disk."""

KEYS_PER_QUERY = 500
"""Maximum number of keys in a query; SQLite limits it."""


class ReferenceStore:
    """The log-probs of one reference, by the keys of responses.

    Args:
        fingerprint: Digest of the reference's weights and settings, the name of the file.
        about: Model and settings, written into the file for `unidpo-mm cache info`.
        cache: Cache directory; None for the default.

    Raises:
        UniDPOError: If the file cannot be opened.
    """

    def __init__(
        self, fingerprint: str, about: Mapping[str, Any], *, cache: Path | None = None
    ) -> None:
        self.path = _stores(cache) / f"{fingerprint}{SUFFIX}"
        with _explain_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
            self._connection.executescript(TABLES)
            described = {**about, "used": time.time()}
            rows = [(name, json.dumps(value, default=str)) for name, value in described.items()]
            with self._connection:
                self._connection.executemany("insert or replace into about values (?, ?)", rows)

    def get(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Return the intact entries among some keys.

        Returns:
            key -> log-prob of each token of the response, float32.
        """
        entries = {}
        with _explain_errors(self.path):
            for start in range(0, len(keys), KEYS_PER_QUERY):
                batch = keys[start : start + KEYS_PER_QUERY]
                marks = ", ".join("?" * len(batch))
                query = f"select key, value, crc from logps where key in ({marks})"
                for key, value, crc in self._connection.execute(query, batch):
                    if _is_intact(value, crc):
                        entries[key] = torch.frombuffer(bytearray(value), dtype=torch.float32)
        return entries

    def put(self, entries: Mapping[str, Tensor]) -> None:
        """Write entries, all or none.

        Raises:
            UniDPOError: If they cannot be written, for example because the disk is full.
        """
        rows = []
        for key, logps in entries.items():
            value = logps.detach().to("cpu", torch.float32).numpy().tobytes()
            rows.append((key, value, zlib.crc32(value)))
        with _explain_errors(self.path), self._connection:
            self._connection.executemany("insert or replace into logps values (?, ?, ?)", rows)

    def clear(self) -> None:
        """Remove every entry."""
        with _explain_errors(self.path), self._connection:
            self._connection.execute("delete from logps")

    def __len__(self) -> int:
        (count,) = self._connection.execute("select count(*) from logps").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def list_references(cache: Path | None = None) -> list[StoreInfo]:
    """Return every reference store of a cache directory; None for the default one."""
    return [_info(path) for path in _paths(cache)]


def verify_references(cache: Path | None = None, *, dry_run: bool = False) -> Iterator[StoreCheck]:
    """Verify every reference store of a cache directory, see `verify_store`."""
    for path in _paths(cache):
        yield verify_store(path, dry_run=dry_run)


def verify_store(path: Path, *, dry_run: bool = False) -> StoreCheck:
    """Check every entry of a store; repair it if that is possible and remove it otherwise.

    Afterwards the store can be opened, or does not exist. A store that another process locks for
    longer than `WAIT_S` remains unchanged.
    """
    if not path.is_file():
        reason = "it is a directory" if path.is_dir() else "it is not a file"
        return _check(path, "damaged", reason=reason) if dry_run else _remove_invalid(path, reason)
    try:
        with contextlib.closing(_connect(path)) as connection, connection:
            entries = connection.execute("select rowid, value, crc from logps")
            damaged = [(row,) for row, value, crc in entries if not _is_intact(value, crc)]
            if not dry_run:
                connection.executemany("delete from logps where rowid = ?", damaged)
            (state,) = connection.execute("pragma integrity_check(1)").fetchone()
            (count,) = connection.execute("select count(*) from logps").fetchone()
            about = connection.execute("select name, value from about").fetchall()
        for _, value in about:
            json.loads(value)
        if state != "ok":
            raise sqlite3.DatabaseError(state)
    except (sqlite3.Error, OSError, TypeError, ValueError) as error:
        reason = str(error)
        if isinstance(error, sqlite3.Error) and not _is_damage(error):
            return _check(path, "unchanged", reason=reason)
        return _check(path, "damaged", reason=reason) if dry_run else _repair(path, reason)
    if damaged and dry_run:
        return _check(path, "damaged", intact=count - len(damaged), damaged=len(damaged))
    return _check(path, "repaired" if damaged else "intact", intact=count, damaged=len(damaged))


def remove_store(path: Path) -> Literal["removed", "moved"]:
    """Remove a store with its journal files; rename a directory with content instead.

    Returns:
        What was done. The new name of a directory has the suffix ``.damaged``.
    """
    if path.is_dir() and not path.is_symlink():
        try:
            path.rmdir()
        except OSError:  # its content is not from this package
            names = (path.with_name(f"{path.name}.damaged{n or ''}") for n in itertools.count())
            path.replace(next(name for name in names if not name.exists()))
            return "moved"
        return "removed"
    for name in (path.name, *(f"{path.name}{suffix}" for suffix in ("-journal", "-wal", "-shm"))):
        path.with_name(name).unlink(missing_ok=True)
    return "removed"


def _stores(cache: Path | None) -> Path:
    return cache_directory(cache) / "references"


def _paths(cache: Path | None) -> list[Path]:
    return sorted(_stores(cache).glob(f"*{SUFFIX}"))


def _info(path: Path) -> StoreInfo:
    status = path.lstat()
    unreadable = StoreInfo(
        path=path, kind="references", entries=None, size=status.st_size, used=status.st_mtime
    )
    try:
        with contextlib.closing(_connect(path)) as connection:
            about = dict(connection.execute("select name, value from about").fetchall())
            (count,) = connection.execute("select count(*) from logps").fetchone()
        values = {name: json.loads(value) for name, value in about.items()}
        return dataclasses.replace(
            unreadable,
            entries=int(count),
            used=float(values.get("used", 0.0)),
            model=str(values.get("model", "")),
            settings=dict(values.get("settings", {})),
        )
    except (sqlite3.Error, OSError, TypeError, ValueError):
        return unreadable


def _check(path: Path, action: Action, **result: Any) -> StoreCheck:
    return StoreCheck(path=path, kind="references", action=action, **result)


def _remove_invalid(path: Path, reason: str) -> StoreCheck:
    try:
        return _check(path, remove_store(path), intact=0, reason=reason)
    except OSError as error:
        return _check(path, "unchanged", reason=str(error))


def _repair(path: Path, reason: str) -> StoreCheck:
    """Replace a damaged store by one with its readable entries; remove it if there are none."""
    entries, about = _readable(path)
    try:
        if not entries:
            return _check(path, remove_store(path), intact=0, reason=reason)
        repaired = path.with_name(f"{path.name}.repaired")
        remove_store(repaired)
        with contextlib.closing(_connect(repaired)) as connection, connection:
            connection.executescript(TABLES)
            rows = [(key, value, crc) for key, (value, crc) in entries.items()]
            connection.executemany("insert into logps values (?, ?, ?)", rows)
            connection.executemany("insert into about values (?, ?)", about.items())
        remove_store(path)
        repaired.replace(path)
    except (sqlite3.Error, OSError) as error:
        return _check(path, "unchanged", reason=str(error))
    return _check(path, "repaired", intact=len(entries), reason=reason)


def _readable(path: Path) -> tuple[dict[str, tuple[bytes, int]], dict[str, str]]:
    """Return the entries and the description that can be read from a damaged store."""
    entries: dict[str, tuple[bytes, int]] = {}
    about: dict[str, str] = {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path)) as connection:
        # a damaged page ends a query; the other direction reaches the entries behind it
        for order in ("asc", "desc"):
            with contextlib.suppress(sqlite3.Error):
                query = f"select key, value, crc from logps order by rowid {order}"
                for key, value, crc in connection.execute(query):
                    if isinstance(key, str) and _is_intact(value, crc):
                        entries[key] = value, crc
        with contextlib.suppress(sqlite3.Error, TypeError, ValueError):
            for name, value in connection.execute("select name, value from about"):
                json.loads(value)
                about[name] = value
    return entries, about


def _is_intact(value: Any, crc: Any) -> bool:
    """Return whether an entry is what was written: bytes with their checksum."""
    return isinstance(value, bytes) and len(value) % 4 == 0 and zlib.crc32(value) == crc


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error is about the content of a file, not about its use or its disk."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code == sqlite3.SQLITE_IOERR_SHORT_READ:  # the file is truncated
        return True
    return code & 0xFF not in NOT_DAMAGE


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT_S)


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        remedy = (
            "Free space or point UNIDPO_MM_CACHE to another disk, finished entries are kept; if "
            "the file is damaged, run unidpo-mm cache verify, which repairs or removes it"
        )
        problem = Problem(str(path), f"the cache cannot be used: {error}", remedy)
        raise UniDPOError(problem) from error
