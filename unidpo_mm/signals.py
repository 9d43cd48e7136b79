"""The signals that end a run after saving it, and the exit codes of such a run."""

import signal

__all__ = ["EXIT_CODE", "SIGNALS", "exit_code_of"]

EXIT_CODE = 75
"""Exit code of a run that a signal ended (EX_TEMPFAIL: try again); 130 after Ctrl-C."""

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")
    if hasattr(signal, name)  # Windows lacks some of them
)


def exit_code_of(number: int) -> int:
    """Return the exit code of a run that a signal ended."""
    return 128 + signal.SIGINT if number == signal.SIGINT else EXIT_CODE
