"""Reference log-probabilities on disk: one SQLite file for each reference.

SQLite gives what a cache of several processes needs: an entry is there whole or not at all, whoever
is killed and whenever, and two processes may write at once. Every entry carries a checksum, so a
file that a disk has damaged gives no wrong number.
"""

import contextlib
import itertools
import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import Problem, UniDPOError
from .folder import cache_folder

__all__ = [
    "ReferenceStore",
    "StoreInfo",
    "Verified",
    "drop_damaged",
    "open_stores",
    "references_folder",
    "remove_store",
    "verify_store",
]

SUFFIX = ".sqlite"
WAIT_S = 120.0
"""How long one process waits for another one's write."""

TABLES = """
create table if not exists logps (key text primary key, value blob not null, crc integer not null);
create table if not exists about (name text primary key, value text not null);
"""

NO_DAMAGE = frozenset(
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
"""Errors of a file that is in use, may not be opened or written, or lies on a failing disk."""

MISSING_AT_A_TIME = 500
"""Keys asked for in one query; SQLite limits them."""


def references_folder(folder: Path | None = None) -> Path:
    """Return the folder of all stores, inside the cache folder."""
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
        """Return what is there of some keys; a damaged entry is not there.

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
                    if _is_intact(value, crc):
                        found[key] = torch.frombuffer(bytearray(value), dtype=torch.float32)
        return found

    def put(self, entries: Mapping[str, Tensor]) -> None:
        """Write entries, all or none.

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
        """Remove every entry."""
        with _explained(self.path), self._connection:
            self._connection.execute("delete from logps")

    def __len__(self) -> int:
        (count,) = self._connection.execute("select count(*) from logps").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def open_stores(folder: Path | None = None) -> Iterator[tuple[Path, StoreInfo | None]]:
    """Yield every store of a folder with what it holds; None for one that cannot be read."""
    for path in sorted((folder or references_folder()).glob(f"*{SUFFIX}")):
        try:
            with contextlib.closing(_connect(path)) as connection:
                about = dict(connection.execute("select name, value from about").fetchall())
                (entries,) = connection.execute("select count(*) from logps").fetchone()
            values = {name: json.loads(value) for name, value in about.items()}
            settings, used = values.get("settings", {}), values.get("used", 0.0)
            info = StoreInfo(
                path=path,
                model=str(values.get("model", "?")),
                settings=dict(settings),
                entries=entries,
                size=path.stat().st_size,
                used=float(used),
            )
        except (sqlite3.Error, OSError, TypeError, ValueError):
            info = None
        yield path, info


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a check of a store did.

    Attributes:
        kept, removed: Number of entries that stay, and that were damaged and are gone; None if
            nobody can say.
        action: ``intact``, ``repaired``, ``removed``, ``moved`` (to a name with the suffix
            ``.damaged``) or ``unchanged`` if the store is in use or may not be written.
        reason: What is wrong, empty if nothing is.
    """

    kept: int | None
    removed: int | None
    action: Literal["intact", "repaired", "removed", "moved", "unchanged"]
    reason: str = ""


def verify_store(path: Path) -> Verified:
    """Check a store entry by entry, repair it if that is possible and remove it otherwise.

    Afterwards the store can be opened, or is gone. A store that another process holds for longer
    than `WAIT_S` is left as it is.
    """
    if not path.is_file():  # a directory, or a link that leads nowhere
        return _cleared(path)
    try:
        dropped = drop_damaged(path)
        with contextlib.closing(_connect(path)) as connection:
            (state,) = connection.execute("pragma integrity_check(1)").fetchone()
            (kept,) = connection.execute("select count(*) from logps").fetchone()
            about = connection.execute("select name, value from about").fetchall()
        for _, value in about:
            json.loads(value)
        if state != "ok":
            raise sqlite3.DatabaseError(state)
    except (UniDPOError, sqlite3.Error, TypeError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, sqlite3.Error) and not _is_damage(cause):
            return Verified(kept=None, removed=None, action="unchanged", reason=str(cause))
        return _salvaged(path, str(cause))
    return Verified(kept=kept, removed=dropped, action="repaired" if dropped else "intact")


def drop_damaged(path: Path) -> int:
    """Remove the entries of a store whose checksum is wrong; return how many."""
    with _explained(path), contextlib.closing(_connect(path)) as connection, connection:
        entries = connection.execute("select rowid, value, crc from logps")
        damaged = [(number,) for number, value, crc in entries if not _is_intact(value, crc)]
        connection.executemany("delete from logps where rowid = ?", damaged)
    return len(damaged)


def remove_store(path: Path) -> Literal["removed", "moved"]:
    """Remove a store with the files beside it; a directory with content is moved aside instead.

    Returns:
        What was done. A moved directory has the suffix ``.damaged``.
    """
    if path.is_dir() and not path.is_symlink():
        try:
            path.rmdir()
        except OSError:  # it holds something that this product did not write
            path.replace(_free_name(path.with_name(f"{path.name}.damaged")))
            return "moved"
        return "removed"
    for name in (path.name, *(f"{path.name}{suffix}" for suffix in ("-journal", "-wal", "-shm"))):
        path.with_name(name).unlink(missing_ok=True)
    return "removed"


def _cleared(path: Path) -> Verified:
    reason = "it is a directory" if path.is_dir() else "it is not a file"
    try:
        return Verified(kept=0, removed=None, action=remove_store(path), reason=reason)
    except OSError as error:
        return Verified(kept=None, removed=None, action="unchanged", reason=str(error))


def _salvaged(path: Path, reason: str) -> Verified:
    """Put a store of the entries that can still be read in the place of a damaged one."""
    entries: dict[str, tuple[bytes, int]] = {}
    about: dict[str, str] = {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path)) as connection:
        # a damaged page ends a pass; the other direction reaches what is behind it
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
    try:
        if not entries:
            return Verified(kept=0, removed=None, action=remove_store(path), reason=reason)
        fresh = path.with_name(f"{path.name}.repaired")
        remove_store(fresh)
        with contextlib.closing(_connect(fresh)) as connection, connection:
            connection.executescript(TABLES)
            rows = [(key, value, crc) for key, (value, crc) in entries.items()]
            connection.executemany("insert into logps values (?, ?, ?)", rows)
            connection.executemany("insert into about values (?, ?)", about.items())
        remove_store(path)
        fresh.replace(path)
    except (sqlite3.Error, OSError) as error:
        return Verified(kept=None, removed=None, action="unchanged", reason=str(error))
    return Verified(kept=len(entries), removed=None, action="repaired", reason=reason)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}{n or ''}") for n in itertools.count())
    return next(name for name in names if not name.exists())


def _is_intact(value: Any, crc: Any) -> bool:
    """Return whether an entry is what was written: bytes with their checksum."""
    return isinstance(value, bytes) and len(value) % 4 == 0 and zlib.crc32(value) == crc


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error comes from the content of a file, not from its use or its disk."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code == sqlite3.SQLITE_IOERR_SHORT_READ:  # the file is cut
        return True
    return code & 0xFF not in NO_DAMAGE


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT_S)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        remedy = (
            "Make room or point UNIDPO_MM_CACHE to another disk, finished entries are kept; if the "
            "file is damaged, run unidpo-mm cache verify, which repairs or removes it"
        )
        problem = Problem(str(path), f"the cache cannot be used: {error}", remedy)
        raise UniDPOError(problem) from error
