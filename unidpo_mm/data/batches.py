"""Fill micro-batches with whole groups, up to a number of pairs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from ..adapter import Adapter, encode_checked
from ..errors import UniDPOError
from ..records import EncodedGroup, PreferenceRow
from .workers import ReadingLog

__all__ = ["FILLER", "GroupBatchSampler", "GroupDataset"]

FILLER = -1
"""Index of the weight-0 group in a `GroupDataset`."""


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

    Whole groups fill a micro-batch up to `batch_size` units; a larger group is a micro-batch of its
    own. The sizes of the groups of each batch depend only on the sizes of all groups, so that every
    epoch has the same number of batches; the groups of these sizes are drawn again in each epoch.
    Batches of fillers make the number of batches a multiple of `multiple_of`, so that all processes
    have the same number.

    Args:
        dataset: Data set whose `epoch` is used.
        units: Number of units (pairs or responses) of each group.
        batch_size: Maximum number of units in a micro-batch.
        seed: Seed of the order, together with the epoch; `None` keeps the order of the rows.
        multiple_of: Number of processes.
    """

    def __init__(
        self,
        dataset: GroupDataset,
        units: Sequence[int],
        batch_size: int,
        *,
        seed: int | None = None,
        multiple_of: int = 1,
    ) -> None:
        self.dataset = dataset
        self.units = list(units)
        self.seed = seed
        self._bins = _pack(Counter(self.units), batch_size)
        self._fillers = -len(self._bins) % multiple_of

    def __len__(self) -> int:
        return len(self._bins) + self._fillers

    def __iter__(self) -> Iterator[list[int]]:
        permute = self._permutation()
        waiting = defaultdict(list)
        for index in reversed(permute(len(self.units))):
            waiting[self.units[index]].append(index)
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


def _pack(sizes: Counter[int], batch_size: int) -> list[list[int]]:
    """Pack sizes into bins of `batch_size` by first-fit decreasing."""
    bins: list[list[int]] = []
    open_bins: dict[int, list[int]] = defaultdict(list)  # remaining room -> indices of bins
    for size in sorted(sizes.elements(), reverse=True):
        room = next((room for room in sorted(open_bins) if room >= size and open_bins[room]), None)
        if room is None:
            bins.append([size])
            number, room = len(bins) - 1, max(batch_size, size)
        else:
            number = open_bins[room].pop(0)
            bins[number].append(size)
        open_bins[room - size].append(number)
    return bins
