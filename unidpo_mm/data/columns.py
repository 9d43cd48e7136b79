"""The numbers of rows in columns, so that many rows can be counted without reading them."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy
from numpy.typing import NDArray

from ..records import PreferenceRow

__all__ = ["Ragged", "RowColumns"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths.

    Attributes:
        offsets: [N + 1] Where each list begins in `values`, and where the last one ends.
        values: All items.
    """

    offsets: Array
    values: Array

    @classmethod
    def of(cls, lists: Iterable[Sequence[Any]], dtype: Any) -> "Ragged":
        """Return lists of Python as an instance."""
        lengths, values = [0], list[Any]()
        for items in lists:
            lengths.append(len(items))
            values.extend(items)
        return cls(numpy.cumsum(lengths), numpy.array(values, dtype=dtype))

    @classmethod
    def join(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Return the lists of several instances, one after another."""
        lengths = numpy.concatenate([[0], *(part.lengths for part in parts)])
        return cls(numpy.cumsum(lengths), numpy.concatenate([part.values for part in parts]))

    @property
    def lengths(self) -> Array:
        """[N] The length of each list."""
        return numpy.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Array:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    @property
    def owners(self) -> Array:
        """For each value, the index of its list."""
        return numpy.repeat(numpy.arange(len(self)), self.lengths)

    def take(self, indices: Array) -> "Ragged":
        """Return the lists with these indices."""
        lengths = self.lengths[indices]
        offsets = numpy.concatenate([[0], numpy.cumsum(lengths)])
        shift = numpy.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths)
        return Ragged(offsets, self.values[numpy.arange(offsets[-1]) + shift])

    def merge(self, offsets: Array) -> "Ragged":
        """Return the lists of each group of consecutive lists, joined."""
        return Ragged(self.offsets[offsets], self.values)


@dataclass(frozen=True)
class RowColumns:
    """The numbers of rows.

    Attributes:
        source_names, domain_names: Names of sources and domains.
        source, domain: [N] Indices into these names.
        images, videos, other_images: [N] Numbers of images, videos and other images.
        responses: [N] Number of responses.
        targets: [N] Number of responses that a loss with unit ``response`` trains on; of the first
            row, if rows are joined.
        scores: Scores of all responses of each row; NaN if missing.
        chosen, rejected: Scores of the responses of each row's pairs; NaN if missing.
        weights: Weights of each row's pairs.
        labels: Weights of each row's labels.
    """

    source_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    source: Array
    domain: Array
    images: Array
    videos: Array
    other_images: Array
    responses: Array
    targets: Array
    scores: Ragged
    chosen: Ragged
    rejected: Ragged
    weights: Ragged
    labels: Ragged

    @classmethod
    def of(cls, rows: Iterable[PreferenceRow]) -> "RowColumns":
        """Return the columns of rows."""
        names: dict[str, int] = {}
        domains: dict[str, int] = {}
        numbers: list[tuple[int, ...]] = []
        lists: tuple[list[list[float]], ...] = ([], [], [], [], [])
        for row in rows:
            scores = [numpy.nan if item.score is None else item.score for item in row.responses]
            numbers.append(
                (
                    names.setdefault(row.source, len(names)),
                    domains.setdefault(row.domain, len(domains)),
                    *(len(row.images), len(row.videos), len(row.other_images)),
                    len(row.responses),
                    len(row.targets()),
                )
            )
            lists[0].append(scores)
            lists[1].append([scores[pair.chosen] for pair in row.pairs])
            lists[2].append([scores[pair.rejected] for pair in row.pairs])
            lists[3].append([pair.weight for pair in row.pairs])
            lists[4].append([label.weight for label in row.labels])
        table = numpy.array(numbers, dtype=numpy.int32).reshape(-1, 7)
        ragged = [Ragged.of(items, numpy.float64) for items in lists]
        return cls(tuple(names), tuple(domains), *table.T, *ragged)

    @classmethod
    def join(cls, parts: Sequence["RowColumns"]) -> "RowColumns":
        """Return the columns of the rows of several instances, one after another."""
        columns: dict[str, Any] = {}
        for names, codes in (("source_names", "source"), ("domain_names", "domain")):
            joined_names = tuple(
                dict.fromkeys(name for part in parts for name in getattr(part, names))
            )
            columns[names] = joined_names
            columns[codes] = numpy.concatenate(
                [
                    numpy.array(
                        list(map(joined_names.index, getattr(part, names))), dtype=numpy.int32
                    )[getattr(part, codes)]
                    for part in parts
                ]
            )
        for column in fields(cls)[len(columns) :]:
            values = [getattr(part, column.name) for part in parts]
            ragged = isinstance(values[0], Ragged)
            columns[column.name] = Ragged.join(values) if ragged else numpy.concatenate(values)
        return cls(**columns)

    def take(self, indices: Array) -> "RowColumns":
        """Return the columns of the rows with these indices."""
        columns: list[Any] = [self.source_names, self.domain_names]
        for column in fields(self)[2:]:
            value = getattr(self, column.name)
            columns.append(value.take(indices) if isinstance(value, Ragged) else value[indices])
        return RowColumns(*columns)

    def for_responses(self) -> "RowColumns":
        """Return the columns of `PreferenceRow.for_responses`, without scores."""
        none = self._empty_lists()
        return dataclasses.replace(
            self,
            responses=self.targets,
            scores=none,
            chosen=none,
            rejected=none,
            weights=none,
            labels=none,
        )

    def for_labels(self, mismatched: Array) -> "RowColumns":
        """Return the columns of `PreferenceRow.for_labels`, without scores.

        Args:
            mismatched: [N] Whether a mismatched response is added.
        """
        owners = numpy.concatenate([self.labels.owners, numpy.repeat(self.weights.owners, 2)])
        weights = numpy.concatenate([self.labels.values, numpy.repeat(self.weights.values, 2)])
        order = numpy.argsort(owners, kind="stable")
        offsets = numpy.concatenate([[0], numpy.cumsum(self.labeled)])
        none = self._empty_lists()
        return dataclasses.replace(
            self,
            responses=self.responses + mismatched,
            scores=none,
            chosen=none,
            rejected=none,
            weights=Ragged(offsets, weights[order]),
            labels=none,
        )

    def _empty_lists(self) -> Ragged:
        return Ragged(numpy.zeros(len(self) + 1, dtype=numpy.int64), numpy.zeros(0))

    def weighted_by_group(self) -> "RowColumns":
        """Return the columns of `joining.weigh_by_group`."""
        shares = self.weights.values / numpy.repeat(self.pairs, self.pairs)
        return dataclasses.replace(self, weights=Ragged(self.weights.offsets, shares))

    def __len__(self) -> int:
        return len(self.source)

    @property
    def pairs(self) -> Array:
        """[N] Number of pairs."""
        return self.weights.lengths

    @property
    def labeled(self) -> Array:
        """[N] Number of labeled responses, if each pair counts as two of them."""
        labeled: Array = self.labels.lengths + 2 * self.pairs
        return labeled

    @property
    def units(self) -> Array:
        """[N] Number of pairs, or of responses if there are no pairs."""
        return numpy.where(self.pairs > 0, self.pairs, self.responses)

    @property
    def sources(self) -> list[str]:
        """The sources of the rows, in the order of their first rows."""
        codes, first = numpy.unique(self.source, return_index=True)
        return [self.source_names[code] for code in codes[numpy.argsort(first)]]

    def of_source(self, name: str, values: Ragged) -> Array:
        """Return the values that belong to rows of a source, in order."""
        code = self.source_names.index(name)
        result: Array = values.values[numpy.repeat(self.source == code, values.lengths)]
        return result
