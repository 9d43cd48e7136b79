"""Rows of sources that are read while the run trains, such as a data set larger than the disk.

A `RowStream` draws rows from its sources without end: when a source has been read, it is read
again. The position of a stream is a few numbers, from which another process continues with exactly
the same rows. Records are shuffled within blocks of a fixed number, so that no more of them have to
be read again.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import DataError, Problem
from ..records import PreferenceRow
from .files import Record
from .record_reader import RecordReader

__all__ = ["RowStream", "SourceStream", "StreamedSource"]

Position = tuple[int, int, int]
"""Epoch of a source, block in the epoch, and row in the block."""

START: Position = (0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class StreamedSource:
    """A source whose records are read one after another.

    Attributes:
        name: Its name.
        weight: How often rows are drawn from it, in relation to other sources.
        records: Returns the records, without the first ones.
        reader: Reads a record into rows.
    """

    name: str
    weight: float
    records: Callable[[int], Iterator[Record]]
    reader: RecordReader


class SourceStream:
    """The rows of one source, without end.

    Args:
        source: The source.
        seed: Seed of the order; `None` for the order of the records.
        block: Number of records that are shuffled together.
        position: Where to start.
    """

    def __init__(
        self, source: StreamedSource, *, seed: int | None, block: int, position: Position = START
    ) -> None:
        self.source, self.seed, self.block = source, seed, block
        self.position = position
        self._rows: list[PreferenceRow] | None = None
        self._records: Iterator[tuple[int, Record]] | None = None
        self._empty = False

    def __iter__(self) -> Iterator[PreferenceRow]:
        return self

    def __next__(self) -> PreferenceRow:
        epoch, block, place = self.position
        while True:
            if self._rows is None:
                self._rows = self._block(epoch, block)
            if self._rows is not None and place < len(self._rows):
                self.position = (epoch, block, place + 1)
                return self._rows[place]
            ended = self._rows is None
            self._rows, place = None, 0
            epoch, block = (epoch + 1, 0) if ended else (epoch, block + 1)

    def _block(self, epoch: int, block: int) -> list[PreferenceRow] | None:
        """Return the shuffled rows of a block; `None` after the last one.

        Raises:
            DataError: If a record is not valid, or the source has no rows.
        """
        if self._records is None:
            skipped = block * self.block
            self._records = enumerate(self.source.records(skipped), start=skipped + 1)
        records = list(itertools.islice(self._records, self.block))
        if not records:
            self._records = None
            if block == 0 or self._empty:
                text = "there are no rows to train on"
                where = f"source '{self.source.name}'"
                raise DataError(Problem(where, text, "Use data with preference pairs"))
            self._empty = True  # unless a row of the next epoch is drawn
            return None
        rows = [row for number, record in records for row in self.source.reader(number, record)]
        if rows:
            self._empty = False
        if self.seed is not None:
            random.Random(f"{self.seed} {self.source.name} {epoch} {block}").shuffle(rows)
        return rows


class RowStream:
    """The rows of several sources, drawn by their weights.

    Args:
        sources: The sources.
        seed: Seed of the order and of the draws; `None` for the order of the records.
        block: Number of records of a source that are shuffled together.
        state: What `state` returned, to continue from there.
    """

    def __init__(
        self,
        sources: Sequence[StreamedSource],
        *,
        seed: int | None,
        block: int,
        state: Sequence[int] | None = None,
    ) -> None:
        numbers = list(state) if state else [0] * (1 + 3 * len(sources))
        self._drawn, positions = numbers[0], numbers[1:]
        self._seed = seed
        self._weights = [source.weight for source in sources]
        self._streams = [
            SourceStream(source, seed=seed, block=block, position=(first, second, third))
            for source, first, second, third in zip(
                sources, positions[::3], positions[1::3], positions[2::3], strict=True
            )
        ]

    @property
    def state(self) -> list[int]:
        """The number of drawn rows and the position of each source."""
        return [self._drawn, *(n for stream in self._streams for n in stream.position)]

    def __next__(self) -> PreferenceRow:
        stream = self._streams[0]
        if len(self._streams) > 1:  # the same draw in every process, and after an interruption
            draw = random.Random(f"{self._seed} {self._drawn}")
            (stream,) = draw.choices(self._streams, self._weights)
        row = next(stream)
        self._drawn += 1
        return row
