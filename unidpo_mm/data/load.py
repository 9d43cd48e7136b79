"""Read data sources into rows, and report all problems of all sources."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import ImagesSection, SourceOptions
from ..errors import DataError, Problem
from ..plugins import FORMATS, load
from ..records import PreferenceRow
from .decoding import MAX_PIXELS
from .detect import detect_format
from .discovery import WHOLE_FILE, list_source
from .files import ArrowRecord
from .formats import Context
from .formats._prompts import PROMPTS
from .groups import join_single_responses
from .hf_datasets import arrow_records, dataset_fingerprint, record_list_problem
from .images import ImageRules
from .locations import SourceListing, SourceLocation
from .rendering import TEMPLATE_COLUMN, template_kwargs_of, with_reasoning
from .row_store import RowSpool, open_rows, source_key
from .row_table import RowTable, concatenated
from .scores import form_pairs, mapping_to, select_pairs
from .source_report import Loaded, SourceReport

__all__ = [
    "DataFiles",
    "Loaded",
    "ReadOptions",
    "SourceReader",
    "SourceReport",
    "duplicate_ids",
    "load_rows",
    "log_reports",
    "read_records",
    "read_sources",
    "rows_from_records",
    "scores_are_optional",
    "source_prefixes",
]


logger = logging.getLogger(__name__)


def scores_are_optional(source: str) -> bool:
    """Return False: no source needs scores."""
    return False


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options for reading data that apply to all sources of a run.

    Attributes:
        score_scale: The scale of `eta` and `tau_good` of the loss. Scores of a source with a
            declared scale are mapped to it; scales are never inferred from the scores.
        needs_scores: Function of the name of a source: whether the loss needs a score for every
            response in its pairs.
        max_pixels: The maximum number of pixels of an image.
        private_downloads: Whether image URLs may lead to this machine or the local network.
        incomplete: Whether rows may lack responses, or scores from which pairs are formed, because
            they are added later.
        used_only: Whether rows are read without the responses that are in no pair and have no
            label, since no loss trains on them.
    """

    score_scale: Sequence[float] | None = None
    needs_scores: Callable[[str], bool] = scores_are_optional
    max_pixels: int = MAX_PIXELS
    private_downloads: bool = False
    incomplete: bool = False
    used_only: bool = False


DEFAULTS = ReadOptions()


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """Data sets in files, which can be passed in place of a data set in memory.

    Attributes:
        sources: The sources.
        images: Limits on their images.
    """

    sources: Sequence[SourceOptions]
    images: ImagesSection = field(default_factory=ImagesSection)


def log_reports(reports: Iterable[SourceReport]) -> None:
    """Log the reports of sources as warnings."""
    for report in reports:
        for sentence in report.sentences():
            logger.warning("source '%s': %s", report.source, sentence)


def load_rows(
    sources: Sequence[SourceOptions], options: ReadOptions = DEFAULTS
) -> Sequence[PreferenceRow]:
    """Return the rows of all sources, in order.

    Raises:
        DataError: With all problems of all sources.
    """
    loaded = read_sources(sources, options)
    if loaded.problems:
        raise DataError(loaded.problems)
    return loaded.rows


def read_sources(sources: Sequence[SourceOptions], options: ReadOptions = DEFAULTS) -> Loaded:
    """Return the rows that could be read, and the problems of the others; see `load_rows`."""
    loaded = Loaded()
    parts: list[Sequence[PreferenceRow]] = []
    for source, prefix in zip(sources, source_prefixes(sources), strict=True):
        try:
            location = SourceLocation(path=source.path, split=source.split, subset=source.subset)
            listing = list_source(location)
            reader = SourceReader(source, listing, options, path=source.path, prefix=prefix)
        except DataError as error:
            loaded.refuse(error.problems)
            loaded.reports.append(SourceReport(source.source_name, score_options=source.scores))
            continue
        result = reader.read()
        if not result.problems and not result.reports[0].records:
            text = "the file contains no rows"
            result.refuse([Problem(source.path, text, "Use a file with rows")])
        parts.append(result.rows)
        loaded.problems += result.problems
        loaded.source_problems += result.source_problems
        loaded.reports += result.reports
    loaded.rows = parts[0] if len(parts) == 1 else concatenated(parts)
    loaded.refuse(duplicate_ids(loaded.rows))
    return loaded


def source_prefixes(sources: Sequence[SourceOptions]) -> list[str]:
    """Return the beginning of the ids of rows of each source.

    Two files may have the same name in different directories.
    """
    names = Counter(source.source_name for source in sources)
    return [
        source.source_name if names[source.source_name] == 1 else f"{number}:{source.path}"
        for number, source in enumerate(sources, start=1)
    ]


def rows_from_records(
    records: Iterable[Any], *, source: str = "data", images: Path | None = None
) -> Sequence[PreferenceRow]:
    """Return the rows of records in memory: dicts, a `datasets.Dataset`, or existing rows.

    Raises:
        DataError: With all problems of all records.
    """
    loaded = read_records(
        records, SourceOptions(path=source, images=None if images is None else str(images))
    )
    if loaded.problems:
        raise DataError(loaded.problems)
    return loaded.rows


def read_records(
    records: Iterable[Any],
    source: SourceOptions | None = None,
    options: ReadOptions = DEFAULTS,
) -> Loaded:
    """Return the rows of records in memory that could be read, and the problems of the others.

    Args:
        records: Dicts, or `PreferenceRow`s, which are kept.
        source: Options of the records' source; messages use its path as the name of the data set.
        options: Options for reading that apply to all sources.
    """
    source = source or SourceOptions(path="data")
    path = f"data set '{source.path}'"
    problem = record_list_problem(records, path)
    if problem is not None:
        return Loaded([], [problem], [problem], [SourceReport(source.source_name)])
    is_dataset = hasattr(records, "with_format")
    fingerprint = dataset_fingerprint(records) if is_dataset else None
    if is_dataset:
        records = arrow_records(records)
    numbered = ((path, number, record) for number, record in enumerate(records, start=1))
    files = None if fingerprint is None else ()
    listing = SourceListing(numbered, files=files, fingerprint=fingerprint)
    spool = RowSpool(in_memory=not is_dataset)
    reader = SourceReader(
        source, listing, options, path=path, prefix=source.source_name, spool=spool
    )
    loaded = reader.read()
    loaded.refuse(duplicate_ids(loaded.rows))
    return loaded


class SourceReader:
    """Reads the records of one source into rows and problems."""

    def __init__(
        self,
        source: SourceOptions,
        listing: SourceListing,
        options: ReadOptions,
        *,
        path: str,
        prefix: str,
        spool: RowSpool | None = None,
    ) -> None:
        self.source, self.path, self.prefix = source, path, prefix
        self.listing, self.options = listing, options
        self.spool = RowSpool() if spool is None else spool
        self.columns = {**listing.columns, **source.columns}
        self.unmapped = listing.unmapped - source.columns.keys()
        name = source.format or listing.format
        self.format = None if name is None else load(FORMATS, name, f"{path}, format")
        folder = listing.folder or Path(source.path).parent
        self.context = Context(
            source=source.source_name,
            where=path,
            id=prefix,
            images=ImageRules(
                folder=folder if source.images is None else Path(source.images),
                explicit=source.images is not None,
                allow_outside=source.images_outside,
                download=source.fetch_images,
                download_private=options.private_downloads,
                max_pixels=options.max_pixels,
            ),
            domain=source.domain,
            scale=mapping_to(options.score_scale, source.scores),
            pairing=functools.partial(form_pairs, rule=source.scores.pairs),
            needs_scores=options.needs_scores(source.source_name),
            incomplete=options.incomplete,
            columns=self.columns,
        )
        self.report = SourceReport(source.source_name, score_options=source.scores)
        self.loaded = Loaded(reports=[self.report])
        self.single_responses: list[PreferenceRow] = []
        self.missing_columns = set(self.columns)

    def read(self) -> Loaded:
        """Return the rows and problems of the records."""
        try:
            return self._read()
        finally:
            self.spool.close()

    def _read(self) -> Loaded:
        key = self._key()
        if (stored := open_rows(key, self.source)) is not None:
            return stored
        try:
            for path, number, record in self.listing.records:
                self.report.records += 1
                if isinstance(record, Problem) and number == WHOLE_FILE:
                    self.loaded.refuse([record])
                else:
                    self.read_record(f"{path} row {number}", record)
        except DataError as error:  # the rest of the file cannot be read
            self.loaded.refuse(error.problems)
        joined_media = any(row.media for row in self.single_responses)
        self._join()
        for column in sorted(self.missing_columns if self.report.records else ()):
            problem = f"no row has a column '{self.columns[column]}'"
            remedy = "Use the name of a column of the file, or remove the entry"
            self.loaded.refuse([Problem(f"{self.path}, columns.{column}", problem, remedy)])
        self.report.rows = len(self.spool)
        if self.loaded.problems or joined_media or key != self._key():
            key = None  # media may change, and with them the rows that are joined
        self.loaded.rows = self.spool.finish(self.report, key)
        return self.loaded

    def _key(self) -> str | None:
        """Return a digest of what is read and how; `None` if it cannot be compared."""
        options, name = self.options, self.source.source_name
        settings: list[Any] = [options.score_scale, options.max_pixels, options.private_downloads]
        settings += [options.needs_scores(name), self.path, self.prefix]
        settings += [name for name in ("incomplete", "used_only") if getattr(options, name)]
        return source_key(self.source, self.listing, settings)

    def read_record(self, where: str, record: Any) -> None:
        """Read a record, or keep it if it is a `PreferenceRow` already."""
        try:
            if isinstance(record, Problem):
                raise DataError(record)
            if isinstance(record, PreferenceRow):
                self._append(self._with_reasoning(record))
            else:
                self._parse(where, record)
        except DataError as error:
            self.loaded.problems += error.problems
            self.report.refused += 1
        except RecursionError:
            problem = Problem(where, "the row is nested too deeply", "Use less nesting")
            self.loaded.problems.append(problem)
            self.report.refused += 1

    def _parse(self, where: str, record: Any) -> None:
        renamed = self._with_format_columns(record, where)
        fallback = PROMPTS if self.options.incomplete else None
        format_ = detect_format(renamed, where, self.format, fallback=fallback)
        row_id, arrow = f"{self.prefix}:{self.report.records}", isinstance(record, ArrowRecord)
        context = replace(self.context, where=where, id=row_id, arrow=arrow)
        row = format_.parse(renamed, context)
        if not isinstance(row, PreferenceRow):
            problem = f"its parse function returned {type(row).__name__}, not a PreferenceRow"
            remedy = "Return the result of RowReader.pair, ranked or row"
            raise DataError(Problem(f"{where}, format '{format_.name}'", problem, remedy))
        row = replace(row, template_kwargs=template_kwargs_of(renamed, where))
        row = self._with_reasoning(row)
        self.report.formats[format_.name] += 1
        self.report.columns |= format_.columns
        columns = {*format_.columns, TEMPLATE_COLUMN}
        values = ((name, value) for name, value in renamed.items() if name not in columns)
        self.report.unread.update(name for name, value in values if value is not None)
        if format_.single_response:
            self.single_responses.append(row)
        else:
            self._select_pairs(row)

    def _with_reasoning(self, row: PreferenceRow) -> PreferenceRow:
        row, stripped = with_reasoning(row, self.source.reasoning)
        self.report.stripped += stripped
        return row

    def _with_format_columns(self, record: Any, where: str) -> Mapping[str, Any]:
        """Return a record whose columns have the names that the formats use."""
        remedy = "Write each row as an object with named fields"
        if not isinstance(record, Mapping):
            raise DataError(
                Problem(where, f"the row is of type {type(record).__name__}, not an object", remedy)
            )
        if not all(isinstance(name, str) for name in record):
            raise DataError(Problem(where, "a column has a name that is not a string", remedy))
        for name in self.unmapped & record.keys():
            self.report.unread[name] += record[name] is not None
        mapped = {name: value for name, value in record.items() if name not in self.unmapped}
        if not self.columns:
            return mapped
        self.missing_columns -= {column for column, name in self.columns.items() if name in record}
        file_names = set(self.columns.values())
        for column in self.columns.keys() - file_names:  # replaced by the mapped column
            self.report.unread[column] += record.get(column) is not None
        rest = {name: value for name, value in mapped.items() if name not in file_names}
        return {**rest, **{column: record.get(name) for column, name in self.columns.items()}}

    def _join(self) -> None:
        problems: list[Problem] = []
        pairing = self.context.pairing
        for row in join_single_responses(self.single_responses, pairing, problems):
            self._select_pairs(row)
        self.loaded.problems += problems
        self.report.refused += len({problem.where for problem in problems})

    def _select_pairs(self, row: PreferenceRow) -> None:
        selected = select_pairs(row, self.source.scores, self.report.pairs)
        if selected is not None:
            self._append(selected)

    def _append(self, row: PreferenceRow) -> None:
        self.spool.append(row.without_unused() if self.options.used_only else row)


def duplicate_ids(rows: Sequence[PreferenceRow]) -> Iterator[Problem]:
    """Yield a problem for each row whose id an earlier row has."""
    if isinstance(rows, RowTable):
        keys = rows.keys("id")
        counts = Counter(keys)
        rows = rows.take(number for number, key in enumerate(keys) if counts[key] > 1)
    in_memory = not isinstance(rows, RowTable)  # then a row may occur several times
    first: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows):
        identity = id(row) if in_memory else number
        before, where = first.setdefault(row.id, (identity, row.where))
        if before != identity:
            problem = f"duplicate id '{row.id}', also used by {where}"
            remedy = "Use a different id for each row, or remove the ids"
            yield Problem(f"{row.where}, field 'id'", problem, remedy)
