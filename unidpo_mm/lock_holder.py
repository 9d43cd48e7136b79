"""The process that holds a lock, in a file next to the lock.

Messages name the process, and a lock whose process has ended can be taken over. The lock file
itself does not contain it, because an attempt to acquire a lock may truncate the file.
"""

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["LockHolder"]


@dataclass(frozen=True)
class LockHolder:
    """A process that holds a lock, or held it last.

    Attributes:
        process: Its process id.
        host: Name of its machine.
        since: When it acquired the lock, in ISO format.
    """

    process: int
    host: str
    since: str

    @classmethod
    def current(cls) -> "LockHolder":
        """Return this process as the holder from now on."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(process=os.getpid(), host=platform.node(), since=now)

    @classmethod
    def read(cls, path: Path) -> "LockHolder | None":
        """Return the recorded holder; `None` if it is unknown."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(content["process"]), str(content["host"]), str(content["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Record the holder, if the file can be written; a lock works without it."""
        with contextlib.suppress(OSError):
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def has_ended(self) -> bool:
        """Whether the process has certainly ended; unknown, hence false, on other machines."""
        if self.host != platform.node() or os.name == "nt":  # there, `os.kill` sends no signal 0
            return False
        try:
            os.kill(self.process, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"
