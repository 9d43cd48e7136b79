"""Sources whose records are streamed: local files, data sets on a hub, iterable data sets."""

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset

from ..config import SourceOptions
from ..errors import DataError, Problem
from ..records import PreferenceRow
from .discovery import list_source
from .files import Record
from .hf_datasets import arrow_records
from .load import DataFiles, ReadOptions, RecordReader, source_prefixes
from .locations import SourceListing, SourceLocation
from .streams import StreamedSource

__all__ = ["first_rows", "is_stream", "streamed_sources"]


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
            reader = RecordReader(item, listing, options, path=item.path, prefix=prefix)
        except DataError as error:
            problems += error.problems
            continue
        streams.append(_streamed(item, functools.partial(_listed, location), reader))
    if problems:
        raise DataError(problems)
    return streams


def _streamed(
    source: SourceOptions, records: Callable[[int], Iterator[Record]], reader: RecordReader
) -> StreamedSource:
    return StreamedSource(
        name=source.source_name, weight=source.weight, records=records, parse=reader
    )


def _listed(location: SourceLocation, skip: int) -> Iterator[Record]:
    """Return the records at a location, without the first ones."""
    return islice(list_source(location).records, skip, None)


def _iterated(dataset: Any, path: str, skip: int) -> Iterator[Record]:
    """Yield the records of an iterable data set, without the first ones."""
    if hasattr(dataset, "with_format"):  # of the library datasets, which can skip files
        dataset = dataset.skip(skip) if skip else dataset
        records = arrow_records(dataset)
    else:
        records = islice(iter(dataset), skip, None)
    for number, record in enumerate(records, start=skip + 1):
        yield path, number, record


def first_rows(open_stream: Callable[[], Any], count: int) -> Sequence[PreferenceRow]:
    """Return the first rows of a stream, each once."""
    stream = open_stream()
    rows: dict[str, PreferenceRow] = {}
    for _ in range(count):
        row = next(stream)
        if row.id in rows:
            break
        rows[row.id] = row
    return list(rows.values())
