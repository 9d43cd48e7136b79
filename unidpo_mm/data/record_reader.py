"""Read single records of a source that is streamed."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from ..config import SourceOptions
from ..errors import DataError, Problem
from ..records import PreferenceRow
from .files import Record
from .load import Loaded, ReadOptions, SourceReader
from .locations import SourceListing
from .row_store import RowSpool

__all__ = ["RecordReader"]

SEARCHED_RECORDS = 1000
"""Maximum number of records that are read to find the first rows and all mapped columns."""


class RecordReader:
    """Reads single records of a source; see `SourceReader` for the arguments.

    It can be sent to data workers: it keeps no open file.
    """

    def __init__(
        self,
        source: SourceOptions,
        listing: SourceListing,
        options: ReadOptions,
        *,
        path: str,
        prefix: str,
    ) -> None:
        closed = dataclasses.replace(listing, records=iter(()))
        self._reader = SourceReader(source, closed, options, path=path, prefix=prefix)

    def __call__(self, number: int, record: Record) -> Sequence[PreferenceRow]:
        """Return the rows of a record: one, or none if its pairs are not selected.

        Args:
            number: Number of the record in the source, from 1; ids of rows contain it.
            record: The record.

        Raises:
            DataError: If the record is not valid, or its rows depend on other records.
        """
        reader, (path, row, content) = self._reader, record
        reader.spool, reader.loaded = RowSpool(in_memory=True), Loaded()
        reader.single_responses = []
        reader.report.records = number
        reader.read_record(f"{path} row {row}", content)
        if reader.loaded.problems:
            raise DataError(reader.loaded.problems)
        if reader.single_responses:
            text = "the format has one response per record, which are joined by their prompts"
            raise DataError(Problem(f"{path} row {row}", text, "Remove streaming"))
        return reader.spool.finish(reader.report, None)

    def first_rows(self, records: Iterator[Record], count: int) -> Loaded:
        """Return the first rows of the source, with the problems of the records before them.

        Columns that the options map are searched for in further records.

        Args:
            records: The records of the source from the first one.
            count: The number of rows.
        """
        reader, loaded = self._reader, Loaded()
        rows: list[PreferenceRow] = []
        number = 0
        try:
            for number, record in enumerate(islice(records, SEARCHED_RECORDS), start=1):
                if len(rows) + len(loaded.problems) < count:
                    try:
                        rows += self(number, record)
                    except DataError as error:
                        loaded.problems += error.problems
                elif not self._still_missing(record):
                    break
        except DataError as error:  # the rest of the file cannot be read
            loaded.refuse(error.problems)
        if number < SEARCHED_RECORDS and not rows and not loaded.problems:
            where, text = f"source '{reader.context.source}'", "there are no rows to train on"
            loaded.refuse([Problem(where, text, "Use data with preference pairs")])
        for column in sorted(reader.missing_columns if number else ()):
            text = f"none of the first records, {number:,}, has a column '{reader.columns[column]}'"
            remedy = "Use the name of a column of the file, or move a row with it to the beginning"
            loaded.refuse([Problem(f"{reader.path}, columns.{column}", text, remedy)])
        reader.report.rows = len(rows)
        loaded.rows, loaded.reports = rows, [copy.deepcopy(reader.report)]
        return loaded

    def _still_missing(self, record: Record) -> set[str]:
        """Return the mapped columns that neither this record nor an earlier one has."""
        reader, content = self._reader, record[2]
        if isinstance(content, Mapping):
            reader.missing_columns -= {
                column for column, name in reader.columns.items() if name in content
            }
        return reader.missing_columns
