"""Fill micro-batches with whole groups, up to a number of pairs or of tokens."""

import bisect
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from ..adapter import Adapter, encode_checked
from ..errors import UniDPOError
from ..records import EncodedGroup, Layout, PreferenceRow
from .measure import Measurements
from .workers import ReadingLog

__all__ = [
    "FILLER",
    "GroupBatchSampler",
    "GroupDataset",
    "pack_tokens",
    "pack_units",
    "rounded",
    "token_sizes",
]

FILLER = -1
"""Index of the weight-0 group in a `GroupDataset`."""

LENGTH_CLASSES = 128
"""Number of lengths, up to that of a micro-batch, to which lengths are rounded up."""


class GroupDataset(Dataset[EncodedGroup]):
    """Rows that are encoded on access; index `FILLER` returns the filler of the adapter.

    Attributes:
        epoch: Epoch, on which the order of samplers depends; set by the trainer.
        reading_log: The rows that data workers are reading.
    """

    def __init__(self, rows: Sequence[PreferenceRow], adapter: Adapter) -> None:
        self.rows = rows
        self.adapter = adapter
        self.epoch = 0
        self.reading_log = ReadingLog()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedGroup:
        if index == FILLER:
            return self.adapter.filler()
        with self.reading_log.reading(index):
            try:
                return encode_checked(self.adapter, self.rows[index])
            except UniDPOError as error:
                if get_worker_info() is None:
                    raise
                return error  # type: ignore[return-value] # the collator passes it on

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; accelerate calls this on every process."""
        self.epoch = epoch


class GroupBatchSampler(Sampler[list[int]]):
    """Yields micro-batches of group indices.

    Whole groups fill a micro-batch up to `batch_size`; a larger group is a micro-batch of its own.
    The sizes of the groups of each batch depend only on the sizes of all groups, so that every
    epoch has the same number of batches; the groups of these sizes are drawn again in each epoch.
    Batches of fillers make the number of batches a multiple of `multiple_of`, so that all processes
    have the same number.

    Args:
        dataset: Data set whose `epoch` is used.
        sizes: Number of units (pairs or responses) of each group, or another size that `pack`
            takes.
        batch_size: Maximum size of a micro-batch.
        seed: Seed of the order, together with the epoch; `None` keeps the order of the rows.
        multiple_of: Number of processes.
        pack: Returns the sizes of the groups of each micro-batch.
    """

    def __init__(
        self,
        dataset: GroupDataset,
        sizes: Sequence[Any],
        batch_size: int,
        *,
        seed: int | None = None,
        multiple_of: int = 1,
        pack: Callable[[Counter[Any], int], list[list[Any]]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.sizes = list(sizes)
        self.seed = seed
        self._bins = (pack or pack_units)(Counter(self.sizes), batch_size)
        self._fillers = -len(self._bins) % multiple_of

    def __len__(self) -> int:
        return len(self._bins) + self._fillers

    def __iter__(self) -> Iterator[list[int]]:
        permute = self._permutation()
        waiting = defaultdict(list)
        for index in reversed(permute(len(self.sizes))):
            waiting[self.sizes[index]].append(index)
        batches = [[waiting[size].pop() for size in sizes] for sizes in self._bins]
        for number in permute(len(batches)):
            yield batches[number]
        for _ in range(self._fillers):
            yield [FILLER]

    def _permutation(self) -> Callable[[int], list[int]]:
        if self.seed is None:
            return lambda length: list(range(length))
        generator = torch.Generator().manual_seed(self.seed + self.dataset.epoch)
        return lambda length: torch.randperm(length, generator=generator).tolist()


def pack_units(sizes: Counter[int], batch_size: int) -> list[list[int]]:
    """Pack sizes into bins of `batch_size` by first-fit decreasing."""
    bins: list[list[int]] = []
    open_bins: dict[int, deque[int]] = defaultdict(deque)  # remaining room -> indices of bins
    rooms: list[int] = []  # those of open bins, in ascending order
    for size in sorted(sizes, reverse=True):
        remaining = sizes[size]
        while remaining > 0:
            place = bisect.bisect_left(rooms, size)
            if place == len(rooms):
                bins.append([])
                number, room = len(bins) - 1, max(batch_size, size)
            else:
                room = rooms[place]
                number = open_bins[room].popleft()
                if not open_bins[room]:
                    del rooms[place]
            # a bin with room for several items of a size gets them one after another
            count = min(remaining, room // max(size, 1))
            bins[number] += [size] * count
            remaining -= count
            room -= count * size
            if not open_bins[room]:
                bisect.insort(rooms, room)
            open_bins[room].append(number)
    return bins


def token_sizes(lengths: Measurements, layout: Layout) -> list[tuple[int, int]]:
    """Return the number of batch rows of each group and the number of tokens of each row."""
    prompt, responses = lengths.numbers["prompt"], lengths.responses
    starts = responses.offsets[:-1]
    if layout != "plain":
        tokens = prompt + numpy.add.reduceat(responses.values, starts)
        return [(1, length) for length in tokens.tolist()]
    tokens = prompt + numpy.maximum.reduceat(responses.values, starts)
    return list(zip(responses.lengths.tolist(), tokens.tolist(), strict=True))


def rounded(sizes: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Return sizes with lengths rounded up, so that many groups have the same size.

    Groups of the same size take turns in the micro-batches of an epoch. Lengths are in classes of
    `limit / LENGTH_CLASSES` tokens.
    """
    width = max(limit // LENGTH_CLASSES, 1)
    return [(rows, -(-length // width) * width) for rows, length in sizes]


def pack_tokens(
    sizes: Counter[tuple[int, int]], limit: int, *, padded: bool
) -> list[list[tuple[int, int]]]:
    """Pack sizes of groups into micro-batches of up to `limit` tokens.

    Args:
        sizes: (batch rows, tokens of a row) -> number of groups.
        limit: Maximum number of tokens of a micro-batch, padding included.
        padded: Whether the rows of a micro-batch are padded to the longest one; then rows of
            similar lengths come together, else the longest groups come first and shorter ones fill
            the room that is left.
    """
    if not padded:
        lengths = Counter({length: 0 for _, length in sizes})
        for (_, length), number in sizes.items():
            lengths[length] += number
        return [[(1, length) for length in bin_] for bin_ in pack_units(lengths, limit)]
    bins: list[list[tuple[int, int]]] = []
    rows = width = 0
    for size in sorted(sizes.elements(), key=lambda size: (-size[1], -size[0])):
        if not bins or (rows + size[0]) * width > limit:
            bins.append([])
            rows, width = 0, size[1]
        bins[-1].append(size)
        rows += size[0]
    return bins
