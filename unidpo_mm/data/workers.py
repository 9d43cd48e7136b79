"""What happens when a data worker fails: the row is named, and the run ends with one message.

An error in a worker crosses to the training process as a value of the batch, so that its problems
arrive whole. A worker that hangs or is killed cannot say anything; so each worker notes in shared
memory which row it is reading.
"""

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch.utils.data import get_worker_info

from ..errors import DataError, Problem, UniDPOError
from ..records import GroupBatch, PreferenceRow
from ..signals import SIGNALS

__all__ = ["ReadingLog", "batch_of", "error_of", "explained_failures", "protect_worker"]

IDLE = -1
MAX_WORKERS = 256


class ReadingLog:
    """Which row each worker is reading, in memory that all processes of a loader share."""

    def __init__(self) -> None:
        self._rows = torch.full((MAX_WORKERS,), IDLE).share_memory_()

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Note a row while it is read; does nothing outside of a worker.

        It is left noted if the worker ends here.
        """
        info = get_worker_info()
        if info is None or info.id >= MAX_WORKERS:
            yield
            return
        self._rows[info.id] = index
        yield
        self._rows[info.id] = IDLE

    def indices(self) -> list[int]:
        """Return the rows that are being read."""
        return sorted({int(row) for row in self._rows if row != IDLE})


def batch_of(item: Mapping[str, Any]) -> GroupBatch:
    """Return the batch that a loader yielded.

    Raises:
        UniDPOError: If a worker could not make it.
    """
    error = item.get("error")
    if error is not None:
        raise error
    batch: GroupBatch = item["batch"]
    return batch


def error_of(groups: Sequence[Any]) -> UniDPOError | None:
    """Return the errors among the groups of a batch as one; None if there are none."""
    errors = [group for group in groups if isinstance(group, UniDPOError)]
    if len(errors) < 2:
        return errors[0] if errors else None
    return type(errors[0])([problem for error in errors for problem in error.problems])


@contextlib.contextmanager
def explained_failures(log: ReadingLog, rows: Sequence[PreferenceRow]) -> Iterator[None]:
    """Explain that a worker hung or was killed, with the rows that workers were reading.

    Raises:
        DataError: In place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DataLoader" not in text:
            raise
        raise DataError(_problem(text, log, rows)) from error


def protect_worker(worker: int) -> None:
    """Let a worker outlive signals that are sent to every process of a job.

    The training process ends its workers itself; a worker that ends first would take the step that
    is to be saved with it. A second SIGTERM ends it, so that a hanging worker can be ended.
    """

    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, once if number == signal.SIGTERM else signal.SIG_IGN)


def _problem(text: str, log: ReadingLog, rows: Sequence[PreferenceRow]) -> Problem:
    reading = [rows[index] for index in log.indices() if index < len(rows)]
    where = "; ".join(f"{row.where} (id {row.id})" for row in reading) or "data workers"
    if "timed out" in text:
        waited = "".join(c for c in text if c.isdigit() or c == ".").strip(".")
        problem = f"a data worker did not deliver a batch within {waited} seconds"
        remedy = (
            "Check the files of these rows (a network disk may hang), raise data.worker_timeout, "
            "or set train.dataloader_num_workers to 0 to read in the training process"
        )
        return Problem(where, problem, remedy)
    problem = f"a data worker ended unexpectedly ({' '.join(text.split()).rstrip('.')})"
    remedy = (
        "The system may have run out of memory or shared memory: lower "
        "train.dataloader_num_workers, or make images smaller with model.image_max_pixels"
    )
    return Problem(where, problem, remedy)
