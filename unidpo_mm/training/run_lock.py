"""A lock that allows one writer per output directory.

Two runs in one directory would delete each other's checkpoints. The operating system releases the
lock when the process ends, so that a killed run never leaves it behind.
"""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import Problem, RecipeError

__all__ = ["LOCK_FILE", "exclusive"]

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.json"
"""The holder of the lock, for messages; trying to take the lock may empty the lock file itself."""

ORPHAN_SECONDS = 10.0
"""Seconds to wait for the data workers of a killed run, which may still hold its lock."""


@contextlib.contextmanager
def exclusive(output_dir: Path, *, option: str = "train.output_dir") -> Iterator[None]:
    """Hold the lock of an output directory; a process may acquire it several times.

    Args:
        output_dir: The directory; it is created if it does not exist.
        option: The option that sets the directory, for messages.

    Raises:
        RecipeError: If another process holds the lock, or the directory cannot be written to.
    """
    is_new = not output_dir.exists()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output_dir / LOCK_FILE, is_singleton=True)
        lock.acquire(timeout=0 if _holder_lives(output_dir) else ORPHAN_SECONDS)
    except Timeout:
        text = f"another process is training into '{output_dir}'{_holder(output_dir)}"
        remedy = "Wait for it, stop it, or choose another directory"
        raise RecipeError(Problem(option, text, remedy)) from None
    except OSError as error:
        text = f"'{output_dir}' cannot be written to ({error.strerror or error})"
        raise RecipeError(Problem(option, text, "Choose another directory")) from error
    try:
        if lock.lock_counter == 1:
            _write_holder(output_dir)
        yield
    finally:
        lock.release()
        if is_new:  # a refused run must not leave files behind
            _remove_empty(output_dir)


def _remove_empty(output_dir: Path) -> None:
    """Remove a directory that contains only the lock."""
    with contextlib.suppress(OSError):
        if {path.name for path in output_dir.iterdir()} <= {LOCK_FILE, HOLDER_FILE}:
            for name in (LOCK_FILE, HOLDER_FILE):
                (output_dir / name).unlink(missing_ok=True)
            output_dir.rmdir()


def _write_holder(output_dir: Path) -> None:
    content = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):
        (output_dir / HOLDER_FILE).write_text(json.dumps(content), encoding="utf-8")


def _holder_lives(output_dir: Path) -> bool:
    """Return whether the last holder of the lock may still be running."""
    try:
        content = json.loads((output_dir / HOLDER_FILE).read_text(encoding="utf-8"))
        if content["host"] != platform.node():
            return True
        os.kill(int(content["process"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return True


def _holder(output_dir: Path) -> str:
    try:
        content = json.loads((output_dir / HOLDER_FILE).read_text(encoding="utf-8"))
        return f" (process {content['process']} on {content['host']} since {content['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
