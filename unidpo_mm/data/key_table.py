"""Find equal 64-bit keys in two arrays, in parts that need little memory."""

from collections.abc import Iterator

import numpy
from numpy.typing import NDArray

__all__ = ["Indices", "KeyTable", "collect"]

Indices = NDArray[numpy.int64]
"""[N] Indices into an array."""

PAIRS = 1 << 20
"""Number of pairs of a part, unless a single key occurs more often."""


class KeyTable:
    """Keys in which others are looked up.

    Args:
        keys: [N] The keys; each may occur several times.
    """

    def __init__(self, keys: NDArray[numpy.uint64]) -> None:
        self._order = numpy.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def pairs(self, queries: NDArray[numpy.uint64]) -> Iterator[tuple[Indices, Indices]]:
        """Yield the indices of all pairs of a query and an equal key, in parts.

        Args:
            queries: [M] Keys to look up; each may occur several times.

        Yields:
            [P] Indices of queries, ascending, and [P] indices of keys.
        """
        start = numpy.searchsorted(self._keys, queries, "left")
        counts = numpy.searchsorted(self._keys, queries, "right") - start
        present = numpy.flatnonzero(counts)
        start, counts = start[present], counts[present]
        parts = numpy.cumsum(counts) // PAIRS
        for part in numpy.split(
            numpy.arange(len(present)), numpy.flatnonzero(numpy.diff(parts)) + 1
        ):
            count = counts[part]
            before = numpy.repeat(numpy.cumsum(count) - count, count)
            place = numpy.repeat(start[part], count) + numpy.arange(len(before)) - before
            yield numpy.repeat(present[part], count), self._order[place]


def collect(parts: Iterator[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
    """Return the pairs of all parts."""
    empty = numpy.empty(0, dtype=numpy.int64)
    left, right = zip((empty, empty), *parts, strict=True)
    return numpy.concatenate(left), numpy.concatenate(right)
