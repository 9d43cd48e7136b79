"""Signals during an evaluation: say that the answers are kept, then end with a documented code."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from unidpo_mm.signals import EXIT_CODE, SIGNALS, exit_code_of

__all__ = ["EXIT_CODE", "Stopped", "stoppable"]


class Stopped(SystemExit):
    """A signal ended the evaluation; every answer up to then is kept."""

    def __init__(self, number: int) -> None:
        super().__init__(exit_code_of(number))


@contextlib.contextmanager
def stoppable(*, speaks: bool = True) -> Iterator[None]:
    """Turn the first signal into `Stopped`; after it signals do what they did before.

    Signals reach the main thread only; in another thread nothing is changed.

    Args:
        speaks: This process prints how to resume.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    owner = os.getpid()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        if os.getpid() != owner:  # a process that was forked off: end it as usual
            os.kill(os.getpid(), number)
            return
        if speaks:  # not print: the signal may have come in the middle of a print
            name = signal.Signals(number).name
            text = (
                f"\nReceived {name}: all answers so far are kept. To resume, run the same command\n"
            )
            os.write(2, text.encode())
        raise Stopped(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
