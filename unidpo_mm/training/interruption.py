"""Signals during training: save at the next step boundary, then exit with a documented code.

SIGTERM, SIGUSR1 and SIGHUP come from schedulers and lost terminals; the process exits with
`EXIT_CODE`, on which a scheduler can requeue the job. Ctrl-C (SIGINT) does the same with exit code
130, and a second Ctrl-C ends the process at once.

A signal may reach some processes of a run only. Before each optimizer step all of them agree, so
that they save the same step.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ..distributed import maximum
from ..signals import EXIT_CODE, SIGNALS, exit_code_of

__all__ = ["EXIT_CODE", "Interruption", "TrainingInterrupted"]

REPEAT = 1.0
"""Seconds within which a second SIGINT is the same key press, which launchers pass on as well."""


class TrainingInterrupted(SystemExit):
    """Training ended because of a signal; what could be saved was saved.

    Attributes:
        text: What was saved and how to continue.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(exit_code_of(number))
        self.number = number
        self.text = text

    def __str__(self) -> str:
        return self.text


class Interruption:
    """Remembers the signal that asked a run to end.

    Args:
        speaks: Whether this process prints what it is going to do.

    Attributes:
        received: The signal that all processes agreed on; 0 if there was none.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        self.speaks = speaks
        self.received = 0
        self._pending = 0
        self._since = 0.0
        self._stepping = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals while training; the handlers of before come back afterwards.

        Signals reach the main thread only; in another thread nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.received = self._pending = 0
        owner = os.getpid()

        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() == owner:
                self._handle(number)
            else:  # a process that was forked off: end it as usual
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
                signal.signal(number, handle)
        try:
            yield
        finally:
            self._stepping = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def start_steps(self) -> None:
        """Note that from now on there is something to save."""
        self._stepping = True

    def end_steps(self) -> None:
        """Note that the last step is done: a signal ends the process without another checkpoint."""
        self._stepping = False

    def agree(self, *, problem: bool = False) -> bool:
        """Agree with all processes on the signal; every process calls it.

        Args:
            problem: Something else that one process may have noticed alone.

        Returns:
            Whether any process noticed a problem.
        """
        self.received, any_problem = maximum([self._pending, int(problem)])
        return bool(any_problem)

    def _handle(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self._pending == signal.SIGINT:
            if now - self._since > REPEAT:
                raise KeyboardInterrupt
            return
        if number == signal.SIGINT or not self._pending:
            self._pending, self._since = number, now
        text = f"Received {signal.Signals(number).name}: "
        if not self._stepping:
            text += "stopping, there is no step to save"
            self._say(text)
            raise TrainingInterrupted(number, text)
        text += "saving after this optimizer step, then stopping"
        self._say(text + ("; Ctrl-C again stops at once" if number == signal.SIGINT else ""))

    def _say(self, text: str) -> None:
        if self.speaks:  # not print: the signal may have come in the middle of a print
            os.write(2, f"\n{text}\n".encode())
