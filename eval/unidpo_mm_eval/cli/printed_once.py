"""Errors of a run with several processes: printed once for each machine."""

import contextlib
import os
import time
from collections.abc import Iterator

from click import ClickException

from unidpo_mm.errors import UniDPOError

__all__ = ["printed_once"]

GRACE = 10.0
"""Seconds that a process waits for the first one to print the same error."""
LOCAL_RANK = "LOCAL_RANK"
"""Variable in which launchers count the processes of a machine."""


@contextlib.contextmanager
def printed_once() -> Iterator[None]:
    """Let the first process of a machine print an error that all of them have.

    The launcher ends the others as soon as the first one fails. An error that only another process
    has is raised there, and so printed, after a while.
    """
    try:
        yield
    except (UniDPOError, ClickException):
        if os.environ.get(LOCAL_RANK, "0") != "0":
            time.sleep(GRACE)
        raise
