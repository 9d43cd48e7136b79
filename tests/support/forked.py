"""Run a function in a forked child of this process, with its own environment and directory.

Importing torch and transformers takes seconds; a child that is forked after the import starts in
milliseconds. Import what the function needs before the first fork.
"""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Finished", "run_forked"]

POLL_SECONDS = 0.005
"""Seconds between checks whether the child has ended."""


@dataclass(frozen=True)
class Finished:
    """The end of a child.

    Attributes:
        code: Exit code; `None` if a signal ended it.
        signal: The signal that ended it; `None` if it exited.
        stdout: Content of standard output.
        stderr: Content of standard error, including the traceback of an exception.
        seconds: Wall time from fork to end.
        timed_out: Whether it was killed because it exceeded its time limit.
    """

    code: int | None
    signal: int | None
    stdout: str
    stderr: str
    seconds: float = 0.0
    timed_out: bool = False

    @property
    def output(self) -> str:
        """Both streams, standard output first."""
        return self.stdout + self.stderr


def run_forked(
    function: Callable[[], Any],
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 120,
    on_start: Callable[[int], None] | None = None,
) -> Finished:
    """Run a function in a forked child and wait for its end.

    `SystemExit` becomes the exit code as in a Python program, another exception a traceback on
    standard error and exit code 1. The child leads its own process group; whatever remains of the
    group is killed at the end.

    Args:
        function: The function that the child runs.
        env: Changes of the environment; `None` removes a variable.
        cwd: Working directory of the child.
        timeout: Seconds after which the child's process group is killed.
        on_start: Called in this process with the child's process id, for example to start a thread
            that kills it.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = (Path(folder) / "stdout", Path(folder) / "stderr")
        began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # the child needs no lock of the parent's threads
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _run_child(function, streams, env or {}, cwd)
        if on_start is not None:
            on_start(child)
        status, timed_out = _wait(child, began + timeout)
        seconds = time.monotonic() - began
        for path in streams:  # a child that is killed at once has not written them
            path.touch()
        stdout, stderr = (path.read_bytes().decode(errors="replace") for path in streams)
    return Finished(
        code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        stdout=stdout,
        stderr=stderr,
        seconds=seconds,
        timed_out=timed_out,
    )


def _wait(child: int, deadline: float) -> tuple[int, bool]:
    """Return the child's wait status and whether it was killed at the deadline."""
    timed_out = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            timed_out = True
            _kill_group(child)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(POLL_SECONDS)
    _kill_group(child)
    return status, timed_out


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # the group has ended
        return


def _run_child(
    function: Callable[[], Any],
    streams: tuple[Path, Path],
    env: Mapping[str, str | None],
    cwd: str | os.PathLike[str] | None,
) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        _reset_signals()
        _replace_shared_locks()
        _redirect(streams)
        if cwd is not None:
            os.chdir(cwd)
        for name, value in env.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        code = _exit_code(function)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code)


def _exit_code(function: Callable[[], Any]) -> int:
    try:
        function()
    except SystemExit as error:
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    return 0


def _reset_signals() -> None:
    """Restore the signal handlers of a new interpreter; pytest and timeouts install others."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _replace_shared_locks() -> None:
    """Create a new lock for the progress bars of the child.

    tqdm's lock is shared with all forked processes: a child killed while it holds the lock would
    leave every later child waiting for it. A subclass that was used before tqdm itself has its own.
    """
    from tqdm import tqdm

    lock, classes = threading.RLock(), [tqdm]
    for kind in classes:
        kind.set_lock(lock)
        classes += kind.__subclasses__()


def _redirect(streams: tuple[Path, Path]) -> None:
    """Redirect both streams to files, also in loggers that have the parent's streams."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    replaced = {}
    for number, path in enumerate(streams, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
        name = ("stdout", "stderr")[number - 1]
        stream = open(number, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        replaced[id(getattr(sys, name))] = replaced[id(getattr(sys, f"__{name}__"))] = stream
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    logging.root.handlers.clear()  # pytest's, which keep messages from standard error
    for logger in logging.root.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", []):
            if isinstance(handler, logging.StreamHandler) and id(handler.stream) in replaced:
                with contextlib.suppress(AttributeError):  # some handlers have a read-only stream
                    handler.stream = replaced[id(handler.stream)]
