"""Micro-batches of rows that are streamed.

All processes and data workers draw the same rows and divide them into the same micro-batches; each
encodes only its own. So neither their number nor an interruption changes the micro-batches.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from ..adapter import Adapter, encode_checked
from ..errors import UniDPOError
from ..records import EncodedGroup, PreferenceRow
from .collate import GroupCollator
from .streams import RowStream
from .workers import ReadingLog

__all__ = ["StreamCollator", "StreamDataset", "StreamItem", "StreamPlan"]


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """How a run reads a stream.

    Attributes:
        open: Returns the stream that continues from a state, or from the start.
        prepare: Returns a row as the loss uses it; `None` to skip it.
    """

    open: Callable[[Sequence[int] | None], RowStream]
    prepare: Callable[[PreferenceRow], PreferenceRow | None]


@dataclass(frozen=True)
class StreamItem:
    """A micro-batch.

    Attributes:
        groups: Its encoded rows, or an error.
        number: Its number in the run.
        state: State of the stream after it.
    """

    groups: list[EncodedGroup]
    number: int
    state: list[int]


class StreamDataset(Dataset[StreamItem]):
    """The micro-batches of a run by number; reading them in order is fast.

    Args:
        plan: The stream.
        adapter: Encodes the rows.
        batch_size: Maximum number of units of a micro-batch.
        length: Number of micro-batches in the run.

    Attributes:
        start: Number of a micro-batch and the state of the stream before it, from which a resumed
            run continues.
    """

    def __init__(self, plan: StreamPlan, adapter: Adapter, batch_size: int, length: int) -> None:
        self.plan, self.adapter, self.batch_size, self.length = plan, adapter, batch_size, length
        self.start: tuple[int, list[int] | None] = (0, None)
        self.rows: list[PreferenceRow] = []  # those of a stream are not known in advance
        self.reading_log = ReadingLog()
        self._stream: RowStream | None = None
        self._process = 0
        self._next = 0
        self._waiting: PreferenceRow | None = None
        self._state_before: list[int] = []  # the state before the row that waits

    def __getstate__(self) -> dict[str, Any]:  # open files are not sent to workers
        return {**vars(self), "_stream": None, "_waiting": None}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> StreamItem:
        try:
            return self._item(number)
        except UniDPOError as error:
            if get_worker_info() is None:
                raise
            return StreamItem([error], number, [])  # type: ignore[list-item] # for the collator

    def _item(self, number: int) -> StreamItem:
        stream = self._stream
        if os.getpid() != self._process:  # forked processes share the positions in open files
            stream, self._process = None, os.getpid()
        if stream is None or number < self._next:
            first, state = self.start if self.start[0] <= number else (0, None)
            stream = self._stream = self.plan.open(state)
            self._next, self._waiting = first, None
        rows: list[PreferenceRow] = []
        after: list[int] = []
        while self._next <= number:
            rows, after = self._draw(stream)
            self._next += 1
        return StreamItem([encode_checked(self.adapter, row) for row in rows], number, after)

    def _draw(self, stream: RowStream) -> tuple[list[PreferenceRow], list[int]]:
        """Return the rows of the next micro-batch and the state after it."""
        rows: list[PreferenceRow] = []
        units = 0
        while True:
            before = self._state_before if self._waiting is not None else stream.state
            row = self._waiting or self.plan.prepare(next(stream))
            self._waiting = None
            if row is None:
                continue
            size = len(row.pairs) or len(row.responses)
            if rows and units + size > self.batch_size:
                self._waiting, self._state_before = row, before
                return rows, before
            rows.append(row)
            units += size
            if units >= self.batch_size:
                return rows, stream.state

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: a run reads its stream once. accelerate calls this."""


class StreamCollator:
    """The collate function of streamed micro-batches, which adds the state of the stream."""

    def __init__(self, collator: GroupCollator) -> None:
        self.collator = collator

    def __call__(self, items: Sequence[StreamItem]) -> dict[str, Any]:
        """Return what the collator returns, with ``"stream"``: number and state."""
        (item,) = items
        return {**self.collator(item.groups), "stream": [item.number, *item.state]}
