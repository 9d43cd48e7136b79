"""Print an error once, although every process of a run raises it.

The processes of a machine compare their messages through files in the temporary directory, because
`torch.distributed` may not be initialized yet, or no longer, when an error occurs.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from ..atomic import write_text

__all__ = ["is_first_process", "print_once", "quiet_other_processes"]

WAIT_SECONDS = 3.0
"""Maximum time that a process waits for the others to fail as well."""

STALE_SECONDS = 600
"""Age in seconds after which a message belongs to an earlier run."""

LOGGERS = ("unidpo_mm", "unidpo_mm_eval", "model_adapters", "py.warnings")


def is_first_process() -> bool:
    """Return whether this is the only process of a run or the first one."""
    return _number("RANK", 0) <= 0


def quiet_other_processes() -> None:
    """Silence notices and warnings, but not errors, on all processes except the first."""
    if is_first_process():
        return
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def print_once(text: str, print_text: Callable[[str], None]) -> None:
    """Print a message on one process of this machine.

    A message of some processes starts with their ranks, a message of all processes does not.

    Args:
        text: The message.
        print_text: The function that prints it.
    """
    local_rank, count = _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)
    if count < 2 or not 0 <= local_rank < count:
        print_text(text)
        return
    first_rank = _number("RANK", local_rank) - local_rank
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    try:
        folder = _folder()
        write_text(folder / str(local_rank), digest)
        messages = _wait(folder, count)
    except OSError:  # no temporary directory: print it on every process
        print_text(f"[rank {first_rank + local_rank}] {text}")
        return
    messages[local_rank] = digest
    ranks = sorted(rank for rank, other in messages.items() if other == digest)
    if ranks[0] == local_rank:
        names = ", ".join(str(first_rank + rank) for rank in ranks)
        label = f"[rank{'' if len(ranks) == 1 else 's'} {names}] "
        print_text(text if len(ranks) == count else label + text)
    _leave(folder, local_rank, count)


def _folder() -> Path:
    """Return the directory that the processes of this run on this machine share."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    run = [os.environ.get(name, "") for name in names]
    key = hashlib.sha256("|".join([*run, str(os.getppid()), str(os.getuid())]).encode())
    folder = Path(tempfile.gettempdir()) / f"unidpo-mm-errors-{key.hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _wait(folder: Path, count: int) -> dict[int, str]:
    """Return rank -> digest of the processes that fail within the time limit."""
    deadline = time.monotonic() + WAIT_SECONDS
    with _termination() as terminated:
        while True:
            messages = _messages(folder, count)
            if len(messages) == count or time.monotonic() > deadline or terminated.is_set():
                return messages
            time.sleep(0.02)


def _messages(folder: Path, count: int) -> dict[int, str]:
    messages = {}
    oldest = time.time() - STALE_SECONDS
    for rank in range(count):
        path = folder / str(rank)
        with contextlib.suppress(OSError):
            if path.stat().st_mtime > oldest:
                messages[rank] = path.read_text(encoding="ascii")
    return messages


def _leave(folder: Path, local_rank: int, count: int) -> None:
    """Remove the directory after the last process has read it."""
    with contextlib.suppress(OSError):
        (folder / f"{local_rank}.done").touch()
        if len(list(folder.glob("*.done"))) == count:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _termination() -> Iterator[threading.Event]:
    """Set an event on SIGTERM, which torchrun sends to the others when the first process exits."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name) or default)
    except ValueError:
        return default
