"""Results of several checkpoints on several benchmarks as one table, beside published values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import load_benchmark
from ..protocols import load_protocol
from ..stats.intervals import DRAWS
from ..stats.paired import holm
from ..suites import Suite
from .comparison import Contrast, Measured, compare, measured
from .result import Result

__all__ = ["Cell", "Column", "Row", "Summary", "summarise"]


@dataclass(frozen=True)
class Column:
    """A benchmark under one protocol: values of two protocols never share a column.

    Attributes:
        benchmark, title: Of the benchmark.
        protocol: Id and version.
        headline: The metric shown.
    """

    benchmark: str
    title: str
    protocol: str
    headline: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table.

    Attributes:
        value: Of the headline.
        measured: The result with intervals; None for a published value.
        contrast: Beside the first row's result on the same data; None where there is none.
        p_corrected: Its p, corrected for all contrasts of the table.
    """

    value: float
    measured: Measured | None = None
    contrast: Contrast | None = None
    p_corrected: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A checkpoint, or what somebody published.

    Attributes:
        name: Whose values.
        published: They come with the suite.
        cells: Column -> number.
        average: Mean over all columns; None where one is missing or none is asked for.
    """

    name: str
    published: bool
    cells: Mapping[Column, Cell]
    average: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The table, and what has to be known beside it.

    Attributes:
        title: Of the suite, or of the table.
        columns: In order.
        rows: Checkpoints in the order given, then published values.
        warnings: Sentences.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = field(default=())


def summarise(
    results: Sequence[Result], suite: Suite | None = None, *, count: int = DRAWS
) -> Summary:
    """Returns the table of results; those of the first checkpoint are compared with.

    Args:
        results: One for each checkpoint, benchmark and protocol.
        suite: Orders the columns and brings published values.
        count: Resamples of an interval.

    Raises:
        DataError: If two results stand in one cell, data of a column differ, or a result is none
            of the suite's.
    """
    _refuse(results, suite)
    columns = _columns(results, suite)
    names = list(dict.fromkeys(result.name for result in results))
    placed = {(result.name, _column(result)): result for result in results}
    contrasts = {
        (name, column): compare([placed[names[0], column], placed[name, column]], count=count)
        for column in columns
        for name in names[1:]
        if (names[0], column) in placed and (name, column) in placed
    }
    tests = {key: found.contrasts[0] for key, found in contrasts.items()}
    corrected = dict(zip(tests, holm([one.paired.p for one in tests.values()]), strict=True))
    rows = []
    for name in names:
        cells = {}
        for column in columns:
            if (name, column) not in placed:
                continue
            result = placed[name, column]
            found = contrasts.get((name, column))
            cells[column] = Cell(
                value=result.metrics[result.headline],
                measured=found.results[1] if found else measured(result, count=count),
                contrast=tests.get((name, column)),
                p_corrected=corrected.get((name, column)),
            )
        rows.append(
            Row(name=name, published=False, cells=cells, average=_average(cells, columns, suite))
        )
    rows += _published(columns, suite)
    return Summary(
        title=suite.title if suite else "Results",
        columns=columns,
        rows=tuple(rows),
        warnings=_warnings(results, columns, suite),
    )


def _column(result: Result) -> Column:
    return Column(result.benchmark, result.title, result.protocol.label, result.headline)


def _columns(results: Sequence[Result], suite: Suite | None) -> tuple[Column, ...]:
    found = list(dict.fromkeys(map(_column, results)))
    if suite is not None:
        found.sort(key=lambda column: suite.benchmarks.index(column.benchmark))
    return tuple(found)


def _refuse(results: Sequence[Result], suite: Suite | None) -> None:
    problems = []
    places = Counter((result.name, _column(result)) for result in results)
    for (name, column), times in places.items():
        if times > 1:
            found = f"{times} results of '{name}' by {column.protocol} are given"
            remedy = "Give one for each checkpoint, benchmark and protocol"
            problems.append(Problem(column.benchmark, found, remedy))
    first: dict[Column, Result] = {}
    for result in results:
        before = first.setdefault(_column(result), result)
        if before.data.sha256 != result.data.sha256:
            found = f"'{result.name}' and '{before.name}' were scored on different data"
            problems.append(Problem(result.benchmark, found, "Score both on the same"))
        if suite is None:
            continue
        part = result.data.sha256.partition("-")[2]
        wanted = "" if suite.subset is None else f"{suite.subset}-{suite.seed}"
        small = suite.subset is not None and result.metrics["n_clusters"] <= suite.subset
        if part != wanted and not small:  # of a small benchmark the part is the whole
            found = f"'{result.name}' was scored on {'a part of' if part else 'all'} the data"
            remedy = f"Score it {f'with --subset {suite.subset}' if wanted else 'whole'}"
            problems.append(Problem(result.benchmark, found, remedy))
        if result.benchmark not in suite.benchmarks:
            found = f"the suite '{suite.id}' has no such benchmark"
            remedy = f"Leave it out; it has {', '.join(suite.benchmarks)}"
            problems.append(Problem(result.benchmark, found, remedy))
        elif result.protocol.id != suite.protocol:
            found = f"it was scored by {result.protocol.label}, the suite's is {suite.protocol}"
            remedy = f"Score it again with --protocol {suite.protocol}"
            problems.append(Problem(f"{result.benchmark} of '{result.name}'", found, remedy))
    if problems:
        raise DataError(problems)


def _average(
    cells: Mapping[Column, Cell], columns: Sequence[Column], suite: Suite | None
) -> float | None:
    """Returns the mean of rounded headlines, where all benchmarks of the suite are there."""
    if suite is None or suite.average is None or len(cells) < len(suite.benchmarks):
        return None
    values = [round(cells[column].value, suite.average) for column in columns]
    return sum(values) / len(values)


def _published(columns: Sequence[Column], suite: Suite | None) -> list[Row]:
    return [
        Row(
            name=one.name,
            published=True,
            cells={
                column: Cell(value=one.values[column.benchmark])
                for column in columns
                if column.benchmark in one.values and _is_usual(column, suite)
            },
        )
        for one in (suite.published if suite else ())
    ]


def _is_usual(column: Column, suite: Suite | None) -> bool:
    """Return whether a column shows the metric that was published."""
    if suite is None:
        return False
    rules = load_benchmark(column.benchmark).rules(load_protocol(suite.protocol).scoring)
    return column.headline == rules.headline


def _warnings(
    results: Sequence[Result], columns: Sequence[Column], suite: Suite | None
) -> tuple[str, ...]:
    told = list(suite.warnings if suite else ())
    weights: dict[str, dict[str, str]] = {}
    for result in results:
        if result.manifest.get("weights"):
            weights.setdefault(result.name, {})[str(result.manifest["weights"])] = result.benchmark
    for name, different in weights.items():
        if len(different) > 1:
            benchmarks = ", ".join(different.values())
            told.append(
                f"the row '{name}' mixes {len(different)} different checkpoints ({benchmarks}): "
                "give each its own name with --name"
            )
    if suite is not None:
        here = {column.benchmark for column in columns}
        absent = [name for name in suite.benchmarks if name not in here]
        if absent:
            told.append(f"of the suite there is no result of {', '.join(absent)}")
    for result in results:
        told += [f"{result.benchmark} of '{result.name}': {one}" for one in result.warnings]
    return tuple(told)
