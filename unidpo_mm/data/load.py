"""Read data sources into rows, and report all problems of all sources."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import ImagesSection, ScoreOptions, SourceOptions
from ..errors import DataError, Problem, counted
from ..records import PreferenceRow
from .decoding import MAX_PIXELS
from .detect import detect_format, format_named
from .discovery import WHOLE_FILE, list_source
from .files import ArrowRecord, Record
from .formats import Context
from .groups import join_single_responses
from .hf_datasets import arrow_records, record_list_problem
from .images import ImageRules
from .locations import SourceListing, SourceLocation
from .rendering import TEMPLATE_COLUMN, template_kwargs_of, with_reasoning
from .scores import PairCounts, form_pairs, mapping_to, select_pairs

__all__ = [
    "DataFiles",
    "Loaded",
    "ReadOptions",
    "SourceReport",
    "load_rows",
    "log_reports",
    "read_records",
    "read_sources",
    "rows_from_records",
]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options for reading that all sources of a run share.

    Attributes:
        score_scale: The scale of `eta` and `tau_good` of the loss. Scores of a source with a
            declared scale are mapped to it; scales are never inferred from the scores.
        needs_scores: Whether the loss needs a score for every response of a pair of a source.
        max_pixels: The maximum number of pixels of an image.
        private_downloads: Whether image URLs may lead to this machine or the local network.
    """

    score_scale: Sequence[float] | None = None
    needs_scores: Callable[[str], bool] = field(default=lambda source: False)
    max_pixels: int = MAX_PIXELS
    private_downloads: bool = False


DEFAULTS = ReadOptions()


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """Data sets in files, to be passed where a data set in memory could be.

    Attributes:
        sources: The sources.
        images: Limits on their images.
    """

    sources: Sequence[SourceOptions]
    images: ImagesSection = field(default_factory=ImagesSection)


@dataclass
class SourceReport:
    """Counts of reading a source.

    Attributes:
        source: Name of the source.
        records: Number of records.
        refused: Number of records with problems.
        rows: Number of rows read from them.
        formats: Format -> number of its records.
        unread: Column -> number of records that have it and whose format does not read it.
        pairs: Counts of selecting the pairs.
        score_options: The options by which they were selected.
        stripped: Number of responses whose reasoning was removed.
    """

    source: str
    records: int = 0
    refused: int = 0
    rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    pairs: PairCounts = field(default_factory=PairCounts)
    score_options: ScoreOptions = field(default_factory=ScoreOptions)
    stripped: int = 0

    def sentences(self) -> list[str]:
        """Return what the user should know about the source, as sentences."""
        sentences = self.pairs.sentences(self.score_options)
        unread = {name: rows for name, rows in self.unread.items() if rows}
        if unread:
            columns = ", ".join(f"{name} ({rows:,})" for name, rows in unread.items())
            sentences.append(f"unused columns: {columns}")
        if self.stripped:
            sentences.append(f"reasoning was removed from {counted(self.stripped, 'response')}")
        return sentences


@dataclass
class Loaded:
    """Rows of sources, and the problems of records that could not be read.

    Attributes:
        rows: The rows.
        problems: All problems.
        source_problems: Those of `problems` that remain if invalid records are skipped.
        reports: A report of each source.
    """

    rows: list[PreferenceRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    source_problems: list[Problem] = field(default_factory=list)
    reports: list[SourceReport] = field(default_factory=list)


def log_reports(reports: Iterable[SourceReport]) -> None:
    """Log the reports of sources as warnings."""
    for report in reports:
        for sentence in report.sentences():
            logger.warning("source '%s': %s", report.source, sentence)


def load_rows(
    sources: Sequence[SourceOptions], options: ReadOptions = DEFAULTS
) -> list[PreferenceRow]:
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
    names = Counter(source.source_name for source in sources)
    for number, source in enumerate(sources, start=1):
        # two files may have the same name in different directories
        prefix = source.source_name if names[source.source_name] == 1 else f"{number}:{source.path}"
        try:
            location = SourceLocation(path=source.path, split=source.split, subset=source.subset)
            listing = list_source(location)
            reader = _Reader(source, listing, options, path=source.path, prefix=prefix)
        except DataError as error:
            loaded.problems += error.problems
            loaded.source_problems += error.problems
            loaded.reports.append(SourceReport(source.source_name, score_options=source.scores))
            continue
        reader.read(listing.records)
        if not reader.report.records and not reader.problems and not reader.source_problems:
            empty = Problem(source.path, "the file contains no rows", "Use a file with rows")
            reader.source_problems.append(empty)
        loaded.rows += reader.rows
        loaded.problems += [*reader.problems, *reader.source_problems]
        loaded.source_problems += reader.source_problems
        loaded.reports.append(reader.report)
    duplicates = list(_duplicate_ids(loaded.rows))
    loaded.problems += duplicates
    loaded.source_problems += duplicates
    return loaded


def rows_from_records(
    records: Iterable[Any], *, source: str = "data", images: Path | None = None
) -> list[PreferenceRow]:
    """Return the rows of records in memory: dicts, a `datasets.Dataset`, or rows as they are.

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
        records: Dicts, or rows, which are kept as they are.
        source: Options of their source; its path is their name.
        options: Options that all sources share.
    """
    source = source or SourceOptions(path="data")
    path = f"data set '{source.path}'"
    problem = record_list_problem(records, path)
    if problem is not None:
        return Loaded([], [problem], [problem], [SourceReport(source.source_name)])
    if hasattr(records, "with_format"):
        records = arrow_records(records)
    listing = SourceListing(
        (path, number, record) for number, record in enumerate(records, start=1)
    )
    reader = _Reader(source, listing, options, path=path, prefix=source.source_name)
    reader.read(listing.records)
    source_problems = [*reader.source_problems, *_duplicate_ids(reader.rows)]
    problems = [*reader.problems, *source_problems]
    return Loaded(reader.rows, problems, source_problems, [reader.report])


class _Reader:
    """Reads the records of one source."""

    def __init__(
        self,
        source: SourceOptions,
        listing: SourceListing,
        options: ReadOptions,
        *,
        path: str,
        prefix: str,
    ) -> None:
        self.source, self.path, self.prefix = source, path, prefix
        self.needs_scores = options.needs_scores(source.source_name)
        self.pairing = functools.partial(form_pairs, rule=source.scores.pairs)
        self.columns = {**listing.columns, **source.columns}
        self.unmapped = listing.unmapped - source.columns.keys()
        name = source.format or listing.format
        self.format = None if name is None else format_named(name, f"{path}, format")
        self.image_rules = _image_rules(source, options, listing.folder)
        self.scale: Callable[[float], float] = mapping_to(options.score_scale, source.scores)
        self.report = SourceReport(source.source_name, score_options=source.scores)
        self.rows: list[PreferenceRow] = []
        self.problems: list[Problem] = []
        self.source_problems: list[Problem] = []
        self.missing_columns = set(self.columns)

    def read(self, records: Iterable[Record]) -> None:
        """Read records into rows and problems."""
        single_responses: list[PreferenceRow] = []
        try:
            for path, number, record in records:
                self.report.records += 1
                if isinstance(record, PreferenceRow):
                    self._keep_row(record)
                elif isinstance(record, Problem):
                    of_record = number != WHOLE_FILE
                    (self.problems if of_record else self.source_problems).append(record)
                    self.report.refused += of_record
                else:
                    self._read_record(f"{path} row {number}", record, single_responses)
        except DataError as error:  # the rest of the file cannot be read
            self.source_problems += error.problems
        self._join(single_responses)
        self.report.rows = len(self.rows)
        for column in sorted(self.missing_columns if self.report.records else ()):
            problem = f"no row has a column '{self.columns[column]}'"
            remedy = "Use the name of a column of the file, or remove the entry"
            self.source_problems.append(Problem(f"{self.path}, columns.{column}", problem, remedy))

    def _keep_row(self, row: PreferenceRow) -> None:
        """Keep a row that the user has built."""
        try:
            row, stripped = with_reasoning(row, self.source.reasoning)
        except DataError as error:
            self.problems += error.problems
            self.report.refused += 1
            return
        self.report.stripped += stripped
        self.rows.append(row)

    def _read_record(self, where: str, record: Any, single_responses: list[PreferenceRow]) -> None:
        try:
            renamed = self._with_format_columns(record, where)
            format_ = detect_format(renamed, where, self.format)
            arrow = isinstance(record, ArrowRecord)
            row = format_.parse(renamed, self._context(where, arrow=arrow))
            if not isinstance(row, PreferenceRow):
                problem = f"parse of the format returns {type(row).__name__}, not a PreferenceRow"
                remedy = "Return the result of RowReader.pair, ranked or row"
                raise DataError(Problem(f"{where}, format '{format_.name}'", problem, remedy))
            row = replace(row, template_kwargs=template_kwargs_of(renamed, where))
            row, stripped = with_reasoning(row, self.source.reasoning)
            self.report.stripped += stripped
        except DataError as error:
            self.problems += error.problems
            self.report.refused += 1
            return
        except RecursionError:
            problem = Problem(where, "the row is nested too deeply", "Use less nesting")
            self.problems.append(problem)
            self.report.refused += 1
            return
        self.report.formats[format_.name] += 1
        for name in renamed.keys() - format_.columns - {TEMPLATE_COLUMN}:
            if renamed[name] is not None:
                self.report.unread[name] += 1
        if format_.single_response:
            single_responses.append(row)
        else:
            self._select_pairs(row)

    def _with_format_columns(self, record: Any, where: str) -> Mapping[str, Any]:
        """Return a record with the names that the formats use for its columns."""
        remedy = "Write each row as an object with named fields"
        if not isinstance(record, Mapping):
            raise DataError(
                Problem(where, f"the row is {type(record).__name__}, not an object", remedy)
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

    def _context(self, where: str, *, arrow: bool) -> Context:
        return Context(
            source=self.source.source_name,
            where=where,
            id=f"{self.prefix}:{self.report.records}",
            images=self.image_rules,
            domain=self.source.domain,
            scale=self.scale,
            pairing=self.pairing,
            needs_scores=self.needs_scores,
            columns=self.columns,
            arrow=arrow,
        )

    def _join(self, single_responses: Sequence[PreferenceRow]) -> None:
        before = len(self.problems)
        for row in join_single_responses(single_responses, self.pairing, self.problems):
            self._select_pairs(row)
        self.report.refused += len({problem.where for problem in self.problems[before:]})

    def _select_pairs(self, row: PreferenceRow) -> None:
        selected = select_pairs(row, self.source.scores, self.report.pairs)
        if selected is not None:
            self.rows.append(selected)


def _image_rules(source: SourceOptions, options: ReadOptions, folder: Path | None) -> ImageRules:
    """Return the rules for the images of a source; `folder` is their default directory."""
    default = folder or Path(source.path).parent
    return ImageRules(
        folder=default if source.images is None else Path(source.images),
        explicit=source.images is not None,
        allow_outside=source.images_outside,
        download=source.fetch_images,
        download_private=options.private_downloads,
        max_pixels=options.max_pixels,
    )


def _duplicate_ids(rows: Sequence[PreferenceRow]) -> Iterator[Problem]:
    first: dict[str, PreferenceRow] = {}
    for row in rows:
        before = first.setdefault(row.id, row)
        if before is not row:
            problem = f"duplicate id '{row.id}', also used by {before.where}"
            remedy = "Use a different id for each row, or remove the ids"
            yield Problem(f"{row.where}, field 'id'", problem, remedy)
