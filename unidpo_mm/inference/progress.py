"""Progress of a run that generates or scores, on stderr, and a clean end after a signal."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..signals import SIGNALS, exit_code_of

__all__ = ["ProgressCallback", "StoppedBySignal", "no_progress", "progress", "stop_on_signal"]

ProgressCallback = Callable[[str, int, int], None]
"""Called with a task, the number of newly finished samples, and their total number."""


def no_progress(name: str, count: int, total: int) -> None:
    """Ignore progress."""


@contextlib.contextmanager
def progress(*, visible: bool) -> Iterator[ProgressCallback]:
    """Show a line per task, and say how to resume if a signal ends the run.

    Yields:
        The callback that receives the progress.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, disable=not visible)
    with stop_on_signal(verbose=visible), bar:
        task = bar.add_task("", total=None, visible=False)  # until there is work

        def on_progress(name: str, count: int, total: int) -> None:
            done = min(bar.tasks[task].completed + count, total)  # shares differ by a batch
            bar.update(task, description=name, total=total, completed=done, visible=True)

        yield on_progress


class StoppedBySignal(SystemExit):
    """A signal ended the run; all responses up to then are stored."""

    def __init__(self, number: int) -> None:
        super().__init__(exit_code_of(number))


@contextlib.contextmanager
def stop_on_signal(*, verbose: bool = True) -> Iterator[None]:
    """Turn the first signal into `StoppedBySignal`; later signals act as before.

    Signals reach the main thread only; in another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    owner = os.getpid()

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        if os.getpid() != owner:  # a forked process ends as usual
            os.kill(os.getpid(), number)
            return
        if verbose:  # not print(), which the signal may have interrupted
            name = signal.Signals(number).name
            text = f"\nReceived {name}: all responses so far are stored. Run the same command again"
            os.write(2, f"{text} to resume\n".encode())
        raise StoppedBySignal(number)

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
