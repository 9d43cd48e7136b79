"""Rows of a run in files or in memory, with their columns: what is selected, split or joined.

A `RowTable` behaves like a list of rows. Rows in files are read when they are used; everything that
concerns all rows, such as splitting them or counting their pairs, uses columns instead.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy
from numpy.typing import NDArray

from ..records import PreferenceRow
from .columns import Ragged, RowColumns
from .content import FileContent, RowMediaKeys, file_content
from .joining import join_rows, weigh_by_group
from .media_keys import MediaKeys
from .row_digest import row_digest, row_digests
from .row_file import RowFile, response_keys, row_keys

__all__ = [
    "FileRows",
    "MemoryRows",
    "Partners",
    "RowTable",
    "columns_of",
    "concatenated",
    "table_of",
    "take_rows",
]

Result = TypeVar("Result")


class MemoryRows(Sequence[PreferenceRow]):
    """Rows in memory, with the same columns as those in a `RowFile`."""

    def __init__(self, rows: Sequence[PreferenceRow]) -> None:
        self.rows = rows

    def __reduce__(self) -> Any:
        return MemoryRows, (self.rows,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    @cached_property
    def columns(self) -> RowColumns:
        """The numbers of the rows."""
        return RowColumns.of(self.rows)

    def keys(self, name: str) -> list[bytes]:
        """Return a key of each row, see `row_keys`."""
        return [values[name] for values in self._keys]

    @cached_property
    def _keys(self) -> list[dict[str, bytes]]:
        return [row_keys(row) for row in self.rows]

    @property
    def response_keys(self) -> Ragged:
        """The `response_keys` of each row."""
        return Ragged.of(map(response_keys, self.rows), numpy.uint64)

    @cached_property
    def content(self) -> FileContent:
        """The digests of the rows; media keys are not part of it, see `media_keys`."""
        digests = numpy.frombuffer(b"".join(row_digests(self.rows)), dtype=numpy.uint8)
        return FileContent(digests.reshape(-1, 32), numpy.array([], dtype="S64"), {})

    @cached_property
    def media_keys(self) -> list[tuple[str, ...]]:
        """The content hashes of each row's images and videos."""
        keys = MediaKeys(self.rows)
        return list(map(keys.of, self.rows))


class FileRows(Sequence[PreferenceRow]):
    """Rows in a file, with the content of their media."""

    def __init__(self, rows: RowFile) -> None:
        self.rows = rows
        self.columns, self.keys = rows.columns, rows.keys

    def __reduce__(self) -> Any:
        return FileRows, (self.rows,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    @property
    def response_keys(self) -> Ragged:
        """The `response_keys` of each row."""
        return self.rows.response_keys

    @cached_property
    def content(self) -> FileContent:
        """The digests of the rows and the content hashes of their media."""
        return file_content(self.rows)

    @property
    def media_keys(self) -> list[tuple[str, ...]]:
        """The content hashes of each row's images and videos."""
        media = self.rows.media
        distinct = self.content.keys_of(numpy.arange(len(self.content.media_keys)))
        keys = [distinct[number] for number in media.values.tolist()]
        starts = media.offsets[:-1].tolist()
        counts = (self.columns.images + self.columns.videos).tolist()  # without other images
        return [tuple(keys[n : n + count]) for n, count in zip(starts, counts, strict=True)]


@dataclass(frozen=True)
class Partners:
    """For each row of a table, another row with which it is combined.

    Attributes:
        rows: [N] The index of the other row among those of the parts; -1 if there is none.
        combine: (row, partner or `None`) -> the combined row.
        columns: (columns, [N] whether there is a partner) -> the columns of the rows.
    """

    rows: NDArray[Any]
    combine: Callable[[PreferenceRow, PreferenceRow | None], PreferenceRow]
    columns: Callable[[RowColumns, NDArray[Any]], RowColumns]

    def take(self, numbers: NDArray[Any]) -> "Partners":
        """Return the partners of the rows with these indices."""
        return dataclasses.replace(self, rows=self.rows[numbers])


class RowTable(Sequence[PreferenceRow]):
    """A sequence of rows, each of which is one row of its parts or several of them, joined.

    Attributes:
        parts: The rows, one part after another.
        members: The indices of the rows that each row of the table consists of; `None` for all
            rows, unchanged.
        changes: Functions that are applied to each row.
        partners: The rows with which the rows are combined; `None` if there are none.
    """

    def __init__(
        self,
        parts: Sequence[MemoryRows | FileRows],
        members: Ragged | None = None,
        changes: tuple[Callable[[PreferenceRow], PreferenceRow], ...] = (),
        partners: Partners | None = None,
    ) -> None:
        self.parts = parts
        self._starts = numpy.cumsum([0, *map(len, parts)]).tolist()
        self.members, self.changes, self.partners = members, changes, partners

    def __reduce__(self) -> Any:  # columns are not sent to workers
        return RowTable, (self.parts, self.members, self.changes, self.partners)

    def __len__(self) -> int:
        return self._starts[-1] if self.members is None else len(self.members)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        numbers = [number] if self.members is None else self.members[number].tolist()
        rows = [self._part_row(item) for item in numbers]
        row = rows[0] if len(rows) == 1 else join_rows(rows)
        if self.partners is not None:
            partner = int(self.partners.rows[number])
            row = self.partners.combine(row, None if partner < 0 else self._part_row(partner))
        for change in self.changes:
            row = change(row)
        return row

    def __iter__(self) -> Iterator[PreferenceRow]:
        return (self[number] for number in range(len(self)))

    def _part_row(self, number: int) -> PreferenceRow:
        part = bisect.bisect_right(self._starts, number) - 1
        row: PreferenceRow = self.parts[part][number - self._starts[part]]
        return row

    # ---- columns ----

    @cached_property
    def columns(self) -> RowColumns:
        """The numbers of the rows."""
        columns = RowColumns.join([part.columns for part in self.parts])
        if self.members is None:
            result = columns
        elif len(self.members.values) == len(self.members):
            result = columns.take(self.members.values)
        else:
            result = self._joined_columns(columns)
        if self.partners is not None:
            result = self.partners.columns(result, self.partners.rows >= 0)
        for change in self.changes:
            result = CHANGED_COLUMNS[change](result)
        return result

    def _joined_columns(self, columns: RowColumns) -> RowColumns:
        assert self.members is not None
        members = self.members
        member_columns = columns.take(members.values)
        first = member_columns.take(members.offsets[:-1])
        keys = Ragged.join([part.response_keys for part in self.parts]).take(members.values)
        joined = keys.merge(members.offsets)
        groups = numpy.stack([joined.owners.astype(numpy.uint64), joined.values], axis=1)
        distinct = numpy.bincount(
            numpy.unique(groups, axis=0)[:, 0].astype(numpy.int64), minlength=len(members)
        )
        alone = members.lengths == 1  # the responses of a row in the data are kept as they are
        lists = {
            name: getattr(member_columns, name).merge(members.offsets)
            for name in ("scores", "chosen", "rejected", "weights", "labels")
        }
        responses = numpy.where(alone, first.responses, distinct)
        return dataclasses.replace(first, responses=responses, **lists)

    def keys(self, name: str) -> list[bytes]:
        """Return a key of each row, see `row_keys`; of joined rows that of the first one."""
        return self._of_members([part.keys(name) for part in self.parts])

    @property
    def media_keys(self) -> list[tuple[str, ...]]:
        """The content hashes of each row's images and videos."""
        return self._of_members([part.media_keys for part in self.parts])

    def _of_members(self, lists: Sequence[list[Result]]) -> list[Result]:
        """Return the value of each row, or of the first of its joined rows."""
        values = lists[0] if len(lists) == 1 else [value for part in lists for value in part]
        if self.members is None:
            return values
        first = self.members.values[self.members.offsets[:-1]]
        return [values[number] for number in first.tolist()]

    def digests(self) -> NDArray[numpy.uint8]:
        """Return the digest of each row, [N, 32]; see `row_digests`."""
        base = numpy.concatenate([part.content.digests for part in self.parts])
        all_changed = bool(self.changes) or self.partners is not None
        if self.members is None and not all_changed:
            return base
        members = self.members or Ragged.of(([n] for n in range(len(self))), numpy.int64)
        result = base[members.values[members.offsets[:-1]]]
        changed = numpy.flatnonzero(members.lengths > 1).tolist()
        if all_changed:
            changed = list(range(len(self)))
        if changed:
            media_keys = self.media_keys  # rows that are joined have the same media
            for number in changed:
                row = self[number]
                digest = row_digest(row, RowMediaKeys(row, media_keys[number]))
                result[number] = numpy.frombuffer(digest, dtype=numpy.uint8)
        return result

    # ---- other tables ----

    def take(self, indices: Iterable[int] | NDArray[Any]) -> "RowTable":
        """Return the rows with these indices."""
        numbers = numpy.fromiter(indices, dtype=numpy.int64)
        partners = None if self.partners is None else self.partners.take(numbers)
        if self.members is not None:
            return RowTable(self.parts, self.members.take(numbers), self.changes, partners)
        members = Ragged(numpy.arange(len(numbers) + 1), numbers)
        return RowTable(self.parts, members, self.changes, partners)

    def joined(self, groups: Iterable[Sequence[int]]) -> "RowTable":
        """Return one row for each group of indices; the table must not have changed rows."""
        assert not self.changes
        assert self.partners is None
        members = Ragged.of(groups, numpy.int64)
        if self.members is not None:
            inner = self.members.take(members.values)
            members = Ragged(inner.offsets[members.offsets], inner.values)
        return RowTable(self.parts, members)

    def for_responses(self) -> "RowTable":
        """Return the rows that have target responses, with only these responses."""
        assert self.partners is None
        table = self.take(numpy.flatnonzero(self.columns.targets > 0))
        return RowTable(table.parts, table.members, (*self.changes, PreferenceRow.for_responses))

    def with_partners(
        self,
        numbers: Sequence[int],
        combine: Callable[[PreferenceRow, PreferenceRow | None], PreferenceRow],
        columns: Callable[[RowColumns, NDArray[Any]], RowColumns],
    ) -> "RowTable":
        """Return the rows, each combined with another one.

        The table must not have changed rows.

        Args:
            numbers: The index of the partner of each row; -1 if there is none.
            combine: As in `Partners`.
            columns: As in `Partners`.
        """
        assert not self.changes
        assert self.partners is None
        rows = numpy.array(numbers, dtype=numpy.int64)
        if self.members is not None:
            first = self.members.values[self.members.offsets[:-1]]
            rows = numpy.where(rows < 0, -1, first[rows])
        return RowTable(self.parts, self.members, (), Partners(rows, combine, columns))

    def weighted_by_group(self) -> "RowTable":
        """Return the rows with the weights of their pairs divided by their number."""
        changes = (*self.changes, weigh_by_group)
        return RowTable(self.parts, self.members, changes, self.partners)


CHANGED_COLUMNS: dict[Any, Callable[[RowColumns], RowColumns]] = {
    PreferenceRow.for_responses: RowColumns.for_responses,
    weigh_by_group: RowColumns.weighted_by_group,
}


def table_of(rows: Sequence[PreferenceRow]) -> RowTable:
    """Return rows as a table."""
    return rows if isinstance(rows, RowTable) else RowTable([MemoryRows(rows)])


def columns_of(rows: Sequence[PreferenceRow]) -> RowColumns:
    """Return the columns of rows."""
    return table_of(rows).columns


def take_rows(rows: Sequence[PreferenceRow], indices: Iterable[int]) -> Sequence[PreferenceRow]:
    """Return the rows with these indices: a table of a table, else a list."""
    if isinstance(rows, RowTable):
        return rows.take(indices)
    return [rows[number] for number in indices]


def concatenated(parts: Sequence[Sequence[PreferenceRow]]) -> Sequence[PreferenceRow]:
    """Return rows one after another: a table if one of the parts is a table, else a list."""
    if len(parts) == 1:
        return parts[0]
    if not any(isinstance(part, RowTable) for part in parts):
        return [row for part in parts for row in part]
    tables = [table_of(part) for part in parts]
    if any(table.changes or table.partners is not None for table in tables):
        return [row for part in parts for row in part]
    inner = [part for table in tables for part in table.parts]
    if all(table.members is None for table in tables):
        return RowTable(inner)
    starts = itertools.accumulate((sum(map(len, table.parts)) for table in tables), initial=0)
    members = [
        Ragged.of(([n] for n in range(len(table))), numpy.int64)
        if table.members is None
        else table.members
        for table in tables
    ]
    shifted = [
        Ragged(lists.offsets, lists.values + start)
        for lists, start in zip(members, starts, strict=False)
    ]
    return RowTable(inner, Ragged.join(shifted))
