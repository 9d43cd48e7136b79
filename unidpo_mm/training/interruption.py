"""Handle signals during training: save after the current step, then exit with a documented code.

Schedulers and lost terminals send SIGTERM, SIGUSR1 and SIGHUP. The process then exits with
`EXIT_CODE`, on which a scheduler can requeue the job. Ctrl-C (SIGINT) does the same with exit code
130, and a second Ctrl-C ends the process at once.

A signal may reach only some processes of a run. All of them agree before each optimizer step, so
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

REPEAT_SECONDS = 1.0
"""Seconds within which a second SIGINT belongs to the same key press: launchers forward it, too."""


class TrainingInterrupted(SystemExit):
    """The end of training because of a signal, after saving a checkpoint if possible.

    Attributes:
        number: The signal.
        text: A message with the saved checkpoint and how to continue.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(exit_code_of(number))
        self.number = number
        self.text = text

    def __str__(self) -> str:
        return self.text


class Interruption:
    """The signal on which a run has to end.

    Args:
        prints: Whether this process prints messages.

    Attributes:
        received: The signal that all processes agreed on; 0 if none was received.
        stepping: Whether training steps run, so that a signal saves a checkpoint; otherwise it ends
            the process at once.
    """

    def __init__(self, *, prints: bool = True) -> None:
        self.prints = prints
        self.received = 0
        self._pending = 0
        self._since = 0.0
        self.stepping = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals while training, and restore the previous handlers afterwards.

        Only the main thread can handle signals; in other threads this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.received = self._pending = 0
        owner = os.getpid()

        def handle(number: int, frame: FrameType | None) -> None:
            if os.getpid() == owner:
                self._handle(number)
            else:  # in a forked process, such as a data worker: end it as usual
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
                signal.signal(number, handle)
        try:
            yield
        finally:
            self.stepping = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def agree(self, *, problem: bool = False) -> bool:
        """Agree with all processes on the signal; every process calls it.

        Args:
            problem: Whether this process noticed another problem, which also has to be shared.

        Returns:
            Whether any process noticed a problem.
        """
        self.received, any_problem = maximum([self._pending, int(problem)])
        return bool(any_problem)

    def _handle(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self._pending == signal.SIGINT:
            if now - self._since > REPEAT_SECONDS:
                raise KeyboardInterrupt
            return
        if number == signal.SIGINT or not self._pending:
            self._pending, self._since = number, now
        text = f"Received {signal.Signals(number).name}: "
        if not self.stepping:
            text += "stopping; there is no step to save"
            self._print(text)
            raise TrainingInterrupted(number, text)
        text += "saving after this optimizer step, then stopping"
        self._print(text + ("; Ctrl-C again stops at once" if number == signal.SIGINT else ""))

    def _print(self, text: str) -> None:
        if self.prints:  # print is not reentrant, and the signal may have interrupted it
            os.write(2, f"\n{text}\n".encode())
