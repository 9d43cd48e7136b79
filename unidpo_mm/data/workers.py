"""Report failures of data workers with the row that caused them.

The error of a worker is passed to the training process as a value of the batch, so that its
problems are kept. A worker that hangs or is killed cannot pass anything; therefore each worker
records in shared memory which row it is reading.
"""

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, cast

import torch
from torch.utils.data import get_worker_info
from torch.utils.data._utils import worker as worker_module

from ..errors import DataError, Problem, UniDPOError
from ..records import GroupBatch, PreferenceRow
from ..signals import SIGNALS

__all__ = [
    "ReadingLog",
    "batch_of",
    "error_of",
    "explained_failures",
    "hidden_worker",
    "protect_worker",
]

IDLE = -1
MAX_WORKERS = 256


class ReadingLog:
    """The rows that workers are reading, in memory shared by all processes of a loader."""

    def __init__(self) -> None:
        self._rows = torch.full((MAX_WORKERS,), IDLE).share_memory_()

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Record a row while a worker reads it; do nothing outside of a worker.

        The row stays recorded if the worker ends meanwhile.
        """
        info = get_worker_info()
        if info is None or info.id >= MAX_WORKERS:
            yield
            return
        self._rows[info.id] = index
        yield
        self._rows[info.id] = IDLE

    def indices(self) -> list[int]:
        """Return the indices of the rows that are being read."""
        return sorted({int(row) for row in self._rows if row != IDLE})


@contextlib.contextmanager
def hidden_worker() -> Iterator[None]:
    """Hide from iterable data sets that a data worker reads them.

    `datasets`, and many data sets of torch, yield only a part of their records in each worker.
    torch has no public function for this.
    """
    info, worker_module._worker_info = worker_module._worker_info, None
    try:
        yield
    finally:
        worker_module._worker_info = info


def batch_of(item: Mapping[str, Any]) -> GroupBatch:
    """Return the batch that a loader yielded.

    Raises:
        UniDPOError: The error of a worker.
    """
    if "error" in item:
        raise item["error"]
    return cast(GroupBatch, item["batch"])


def error_of(groups: Sequence[Any]) -> UniDPOError | None:
    """Return the errors among the groups of a batch as one error; `None` if there are none."""
    errors = [group for group in groups if isinstance(group, UniDPOError)]
    if len(errors) < 2:
        return errors[0] if errors else None
    return type(errors[0])([problem for error in errors for problem in error.problems])


@contextlib.contextmanager
def explained_failures(log: ReadingLog, rows: Sequence[PreferenceRow]) -> Iterator[None]:
    """Replace errors of hanging or killed workers by one that names the rows being read.

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
    """Let a worker survive signals that are sent to every process of a job.

    The training process ends its workers itself; if a worker ended earlier, the step before the
    final checkpoint would fail. A second SIGTERM ends a worker that hangs.
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
        return Problem(
            where,
            f"a data worker did not deliver a batch within {waited} seconds",
            "Check the files of these rows (a network disk may hang), raise data.worker_timeout, "
            "or set train.dataloader_num_workers to 0 to read in the training process",
        )
    return Problem(
        where,
        f"a data worker ended unexpectedly ({' '.join(text.split()).rstrip('.')})",
        "The system may have run out of memory or shared memory: lower "
        "train.dataloader_num_workers, or make images smaller with model.image_max_size",
    )
