"""Sources whose records are streamed: local files, data sets on a hub, iterable data sets."""

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from ..config import SourceOptions
from ..errors import DataError, Problem
from ..records import PreferenceRow
from .discovery import list_source
from .files import Record, kind_of
from .hf_datasets import arrow_records
from .load import DataFiles, Loaded, ReadOptions, duplicate_ids, source_prefixes
from .locations import SourceListing, SourceLocation
from .record_reader import RecordReader
from .source_report import SourceReport
from .streams import StreamedSource
from .workers import hidden_worker

__all__ = ["first_rows", "is_stream", "streamed_sources"]

MAX_JSON_BYTES = 100_000_000
"""Maximum size of a streamed JSON file, which each data worker of each process reads completely."""


def is_stream(dataset: Any) -> bool:
    """Return whether a data set is read while the run trains: an `IterableDataset`, or files."""
    if isinstance(dataset, DataFiles):
        return any(source.streaming for source in dataset.sources)
    if isinstance(dataset, IterableDataset):
        return True
    return hasattr(dataset, "with_format") and not hasattr(dataset, "__len__")  # of `datasets`


def streamed_sources(
    dataset: Any, source: SourceOptions | None, options: ReadOptions
) -> list[StreamedSource]:
    """Return the sources of a data set that is streamed.

    Args:
        dataset: `DataFiles`, or an iterable data set.
        source: Options of an iterable data set.
        options: Options for reading.

    Raises:
        DataError: If a source cannot be read.
    """
    if source is not None:
        path = f"data set '{source.path}'"
        records = functools.partial(_iterated, dataset, path)
        reader = RecordReader(
            source, SourceListing(iter(())), options, path=path, prefix=source.source_name
        )
        return [_streamed(source, records, reader)]
    streams: list[StreamedSource] = []
    problems: list[Problem] = []
    for item, prefix in zip(dataset.sources, source_prefixes(dataset.sources), strict=True):
        location = SourceLocation(
            path=item.path, split=item.split, subset=item.subset, streaming=True
        )
        try:
            listing = list_source(location)
            _check_sizes(listing.files or ())
            reader = RecordReader(item, listing, options, path=item.path, prefix=prefix)
        except DataError as error:
            problems += error.problems
            continue
        streams.append(_streamed(item, functools.partial(_listed, location), reader))
    if problems:
        raise DataError(problems)
    return streams


def _check_sizes(files: Sequence[Path]) -> None:
    """Check that no JSON file is too large to be streamed.

    Raises:
        DataError: If one is.
    """
    for file in files:
        if kind_of(file) in (".json", ".json.gz") and file.stat().st_size > MAX_JSON_BYTES:
            text = f"a JSON file of more than {MAX_JSON_BYTES // 1_000_000} MB cannot be streamed"
            text += ", because it is read as a whole"
            remedy = "Write one object per line in a .jsonl file, or set streaming to false"
            raise DataError(Problem(str(file), text, remedy))


def _streamed(
    source: SourceOptions, records: Callable[[int], Iterator[Record]], reader: RecordReader
) -> StreamedSource:
    return StreamedSource(
        name=source.source_name, weight=source.weight, records=records, reader=reader
    )


def _listed(location: SourceLocation, skip: int) -> Iterator[Record]:
    """Return the records at a location, without the first ones."""
    return _all_in_every_worker(islice(list_source(location).records, skip, None))


def _iterated(dataset: Any, path: str, skip: int) -> Iterator[Record]:
    """Return the records of an iterable data set, without the first ones."""
    return _all_in_every_worker(_numbered(dataset, path, skip))


def _numbered(dataset: Any, path: str, skip: int) -> Iterator[Record]:
    if hasattr(dataset, "with_format"):  # of the library datasets, which can skip files
        dataset = dataset.skip(skip) if skip else dataset
        records = arrow_records(dataset)
    else:
        records = islice(iter(dataset), skip, None)
    for number, record in enumerate(records, start=skip + 1):
        yield path, number, record


def _all_in_every_worker(records: Iterator[Record]) -> Iterator[Record]:
    """Yield all records of a data set that would yield only a part of them in a data worker."""
    while True:
        with hidden_worker():
            record = next(records, None)
        if record is None:
            return
        yield record


def first_rows(sources: Sequence[StreamedSource], count: int) -> Loaded:
    """Return the first rows of each source, with their problems; see `RecordReader.first_rows`."""
    loaded = Loaded()
    rows: list[PreferenceRow] = []
    for source in sources:
        try:
            part = source.reader.first_rows(source.records(0), count)
        except DataError as error:
            part = Loaded(reports=[SourceReport(source.name)])
            part.refuse(error.problems)
        rows += part.rows
        loaded.problems += part.problems
        loaded.source_problems += part.source_problems
        loaded.reports += part.reports
    loaded.rows = rows
    loaded.refuse(duplicate_ids(rows))
    return loaded
