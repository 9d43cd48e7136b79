"""Reads data files into rows; every problem of every file is reported, none is skipped over."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem, counted
from ..records import Domain, PreferenceRow, Reasoning
from .detect import format_named, format_of
from .files import ArrowRecord, Record
from .formats import Context, Format
from .groups import join_answers
from .images import MAX_PIXELS, ImageRules
from .memory import arrow_records, not_records
from .places import OF_FILE, Found, Place, read_place
from .rendering import TEMPLATE_COLUMN, template_kwargs_of, with_reasoning
from .scores import PairCounts, ScoreOptions, settle

__all__ = [
    "Loaded",
    "SourceFile",
    "SourceReport",
    "load_rows",
    "log_reports",
    "read_records",
    "read_sources",
    "rows_from_records",
]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One source of data.

    Attributes:
        path: What `data.places.Place` takes: a file, a folder, a registry or a name on the hub.
        split, subset: As there.
        format: Name of the format; None to find it by the columns of each row.
        columns: Name of a column of the format -> its name in the file, where they differ.
        images: Folder of the images; None for the folder of the file.
        images_outside: Paths of images may leave that folder.
        fetch_images: Addresses of images may be fetched.
        fetch_private_addresses: So may those of this machine and of the local network.
        max_pixels: Most pixels of an image.
        name: Name of the source; None for the file's name.
        domain: Domain of all its rows; None to tell it row by row.
        scores: What the scores mean, and what to do with them.
        needs_scores: The loss needs a score for every answer of a pair.
        reasoning: ``keep`` scores responses exactly as they are written, ``strip`` removes their
            reasoning; None refuses a response that the chat template would change.
    """

    path: str
    split: str | None = None
    subset: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    images: str | None = None
    images_outside: bool = False
    fetch_images: bool = False
    fetch_private_addresses: bool = False
    max_pixels: int = MAX_PIXELS
    name: str | None = None
    domain: Domain | None = None
    scores: ScoreOptions = field(default_factory=ScoreOptions)
    needs_scores: bool = False
    reasoning: Reasoning | None = None

    @property
    def source_name(self) -> str:
        """The name under which the source appears in messages and settings."""
        return self.name or self.subset or Path(self.path).stem

    def rules(self, folder: Path | None = None) -> ImageRules:
        """Return what holds for its images; `folder` is where they lie if nothing is stated."""
        usual = folder or Path(self.path).parent
        return ImageRules(
            folder=usual if self.images is None else Path(self.images),
            stated=self.images is not None,
            allow_outside=self.images_outside,
            fetch=self.fetch_images,
            fetch_private=self.fetch_private_addresses,
            max_pixels=self.max_pixels,
        )


@dataclass
class SourceReport:
    """What reading a source found beside its rows.

    Attributes:
        source: Its name.
        records: Records read.
        refused: Records that could not be read.
        rows: Rows that came of them.
        formats: Format -> records of it.
        unread: Column -> records that have it and whose format does not read it.
        pairs: What became of the pairs.
        policy: What was asked for.
        stripped: Responses whose reasoning was removed.
    """

    source: str
    records: int = 0
    refused: int = 0
    rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    pairs: PairCounts = field(default_factory=PairCounts)
    policy: ScoreOptions = field(default_factory=ScoreOptions)
    stripped: int = 0

    def sentences(self) -> list[str]:
        """Return what the user should know of the source."""
        found = self.pairs.sentences(self.policy)
        unread = {name: rows for name, rows in self.unread.items() if rows}
        if unread:
            columns = ", ".join(f"{name} ({rows:,})" for name, rows in unread.items())
            found.append(f"columns that nothing reads: {columns}")
        if self.stripped:
            found.append(f"reasoning was removed from {counted(self.stripped, 'response')}")
        return found


@dataclass
class Loaded:
    """Rows, the problems with the others, and a report of each source.

    Attributes:
        rows: What could be read.
        problems: Everything that is wrong.
        not_of_rows: Those of them that leaving out single records would not mend.
        reports: What else was found.
    """

    rows: list[PreferenceRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    not_of_rows: list[Problem] = field(default_factory=list)
    reports: list[SourceReport] = field(default_factory=list)


def log_reports(reports: Iterable[SourceReport]) -> None:
    """Warn of what was done with the pairs of sources."""
    for report in reports:
        for sentence in report.sentences():
            logger.warning("source '%s': %s", report.source, sentence)


def load_rows(
    sources: Sequence[SourceFile], *, score_scale: tuple[float, float] | None = None
) -> list[PreferenceRow]:
    """Return the rows of all sources.

    Args:
        sources: What to read, in order.
        score_scale: The unit of the loss's eta and tau_good; scores of a source with a declared
            scale are mapped to it. Observed ranges never are.

    Raises:
        DataError: With every problem of every file.
    """
    loaded = read_sources(sources, score_scale=score_scale)
    if loaded.problems:
        raise DataError(loaded.problems)
    return loaded.rows


def read_sources(
    sources: Sequence[SourceFile], *, score_scale: tuple[float, float] | None = None
) -> Loaded:
    """Return the rows that could be read and the problems with the others; see `load_rows`."""
    loaded = Loaded()
    names = Counter(source.source_name for source in sources)
    for number, source in enumerate(sources, start=1):
        # files of one name in two folders give rows of two names
        prefix = source.source_name if names[source.source_name] == 1 else f"{number}:{source.path}"
        try:
            found = read_place(Place(path=source.path, split=source.split, subset=source.subset))
            reader = _Reader(source, found, score_scale, place=source.path, prefix=prefix)
        except DataError as error:
            loaded.problems += error.problems
            loaded.not_of_rows += error.problems
            loaded.reports.append(SourceReport(source.source_name, policy=source.scores))
            continue
        reader.read(found.records)
        if not reader.report.records and not reader.problems and not reader.not_of_rows:
            empty = Problem(source.path, "the file holds no row", "Give a file with rows")
            reader.not_of_rows.append(empty)
        loaded.rows += reader.rows
        loaded.problems += [*reader.problems, *reader.not_of_rows]
        loaded.not_of_rows += reader.not_of_rows
        loaded.reports.append(reader.report)
    duplicates = list(_duplicate_ids(loaded.rows))
    loaded.problems += duplicates
    loaded.not_of_rows += duplicates
    return loaded


def rows_from_records(
    records: Iterable[Any], *, source: str = "data", images: Path | None = None
) -> list[PreferenceRow]:
    """Return the rows of records in memory: dicts, a `datasets.Dataset`, or rows as they are.

    Raises:
        DataError: With every problem of every record.
    """
    loaded = read_records(
        records, SourceFile(path=source, images=None if images is None else str(images))
    )
    if loaded.problems:
        raise DataError(loaded.problems)
    return loaded.rows


def read_records(
    records: Iterable[Any],
    source: SourceFile | None = None,
    *,
    score_scale: tuple[float, float] | None = None,
) -> Loaded:
    """Return the rows of records in memory that could be read, and the problems with the others.

    Args:
        records: Dicts, or rows, which are taken as they are.
        source: What holds for them; its path is their name.
        score_scale: As for `load_rows`.
    """
    source = source or SourceFile(path="data")
    place = f"data set '{source.path}'"
    problem = not_records(records, place)
    if problem is not None:
        return Loaded([], [problem], [problem], [SourceReport(source.source_name)])
    if hasattr(records, "with_format"):
        records = arrow_records(records)
    reader = _Reader(source, Found(iter(())), score_scale, place=place, prefix=source.source_name)
    reader.read((place, number, record) for number, record in enumerate(records, start=1))
    not_of_rows = [*reader.not_of_rows, *_duplicate_ids(reader.rows)]
    problems = [*reader.problems, *not_of_rows]
    return Loaded(reader.rows, problems, not_of_rows, [reader.report])


class _Reader:
    """Reads the records of one source."""

    def __init__(
        self,
        source: SourceFile,
        found: Found,
        score_scale: tuple[float, float] | None,
        *,
        place: str,
        prefix: str,
    ) -> None:
        self.source, self.place, self.prefix = source, place, prefix
        self.columns = {**found.columns, **source.columns}
        self.unnamed = found.unnamed - source.columns.keys()
        self.named = _named(source, found, place)
        self.rules = source.rules(found.folder)
        self.scale: Callable[[float], float] = source.scores.to_scale(score_scale)
        self.report = SourceReport(source.source_name, policy=source.scores)
        self.rows: list[PreferenceRow] = []
        self.problems: list[Problem] = []
        self.not_of_rows: list[Problem] = []
        self.missing = set(self.columns)

    def read(self, records: Iterable[Record]) -> None:
        """Read records into rows and problems."""
        single: list[PreferenceRow] = []
        try:
            for place, number, record in records:
                self.report.records += 1
                if isinstance(record, PreferenceRow):
                    self._take(record)
                elif isinstance(record, Problem):
                    of_row = number != OF_FILE
                    (self.problems if of_row else self.not_of_rows).append(record)
                    self.report.refused += of_row
                else:
                    self._read(f"{place} row {number}", record, single)
        except DataError as error:  # the rest of a file cannot be read; what was read still counts
            self.not_of_rows += error.problems
        self._join(single)
        self.report.rows = len(self.rows)
        for usual in sorted(self.missing if self.report.records else ()):
            own = self.columns[usual]
            where = f"{self.place}, columns.{usual}"
            remedy = "Name a column of the file, or leave it out"
            if usual in self.columns:
                self.not_of_rows.append(Problem(where, f"no row has a column '{own}'", remedy))

    def _take(self, row: PreferenceRow) -> None:
        """Keep a row that was made before."""
        try:
            row, stripped = with_reasoning(row, self.source.reasoning)
        except DataError as error:
            self.problems += error.problems
            self.report.refused += 1
            return
        self.report.stripped += stripped
        self.rows.append(row)

    def _read(self, where: str, record: Any, single: list[PreferenceRow]) -> None:
        try:
            usual = self._by_usual_names(record, where)
            format_ = format_of(usual, where, self.named)
            arrow = isinstance(record, ArrowRecord)
            row = format_.parse(usual, self._context(where, arrow=arrow))
            row = replace(row, template_kwargs=template_kwargs_of(usual, where))
            row, stripped = with_reasoning(row, self.source.reasoning)
            self.report.stripped += stripped
        except DataError as error:
            self.problems += error.problems
            self.report.refused += 1
            return
        except RecursionError:
            deep = "the row is nested too deeply"
            self.problems.append(Problem(where, deep, "Write it with less nesting"))
            self.report.refused += 1
            return
        self.report.formats[format_.name] += 1
        for name in usual.keys() - format_.known - {TEMPLATE_COLUMN}:
            if usual[name] is not None:
                self.report.unread[name] += 1
        if format_.one_answer:
            single.append(row)
        else:
            self._keep(row)

    def _by_usual_names(self, record: Any, where: str) -> Mapping[str, Any]:
        """Return a record by the columns of its format."""
        remedy = "Write each row as an object with named fields"
        if not isinstance(record, Mapping):
            raise DataError(Problem(where, f"the row is {type(record).__name__}", remedy))
        if not all(isinstance(name, str) for name in record):
            raise DataError(Problem(where, "a column has a name that is no text", remedy))
        for name in self.unnamed & record.keys():
            self.report.unread[name] += record[name] is not None
        named = {name: value for name, value in record.items() if name not in self.unnamed}
        if not self.columns:
            return named
        self.missing -= {usual for usual, own in self.columns.items() if own in record}
        theirs = set(self.columns.values())
        for usual in self.columns.keys() - theirs:  # it stands there, and another is read for it
            self.report.unread[usual] += record.get(usual) is not None
        rest = {name: value for name, value in named.items() if name not in theirs}
        return {**rest, **{usual: record.get(own) for usual, own in self.columns.items()}}

    def _context(self, where: str, *, arrow: bool) -> Context:
        return Context(
            source=self.source.source_name,
            where=where,
            id=f"{self.prefix}:{self.report.records}",
            images=self.rules,
            domain=self.source.domain,
            scale=self.scale,
            pairing=self.source.scores.pairing,
            needs_scores=self.source.needs_scores,
            columns=self.columns,
            arrow=arrow,
        )

    def _join(self, single: Sequence[PreferenceRow]) -> None:
        before = len(self.problems)
        for row in join_answers(single, self.source.scores.pairing, self.problems):
            self._keep(row)
        self.report.refused += len({problem.where for problem in self.problems[before:]})

    def _keep(self, row: PreferenceRow) -> None:
        settled = settle(row, self.source.scores, self.report.pairs)
        if settled is not None:
            self.rows.append(settled)


def _named(source: SourceFile, found: Found, place: str) -> Format | None:
    name = source.format or found.format
    return None if name is None else format_named(name, f"{place}, format")


def _duplicate_ids(rows: Sequence[PreferenceRow]) -> Iterator[Problem]:
    first: dict[str, PreferenceRow] = {}
    for row in rows:
        before = first.setdefault(row.id, row)
        if before is not row:
            problem = f"the id '{row.id}' is taken by {before.where}"
            remedy = "Give each row its own id, or leave the ids out"
            yield Problem(f"{row.where}, field 'id'", problem, remedy)
