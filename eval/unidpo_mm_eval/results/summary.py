"""Results of several models on several benchmarks as one table, with published values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import load_benchmark
from ..protocols import load_protocol
from ..stats.intervals import RESAMPLES
from ..stats.paired import holm
from ..suites import Suite
from .comparison import Contrast, ResultWithIntervals, compare, with_intervals
from .result import Result


@dataclass(frozen=True)
class Column:
    """A benchmark under one protocol; values of different protocols never share a column."""

    benchmark: str
    title: str
    protocol: str
    headline: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table."""

    value: float  # Value of the headline metric
    # The result with intervals; `None` for a published value
    measured: ResultWithIntervals | None = None
    # Relative to the first row's result on the same data; `None` if there is none
    contrast: Contrast | None = None
    p_corrected: float | None = None  # p-value, corrected for all contrasts of the table


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model, or published values."""

    name: str  # Name of the model
    published: bool  # The values come with the suite
    cells: Mapping[Column, Cell]  # Column -> number
    # Mean over all columns; `None` if one is missing or the suite has no average
    average: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The table."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()


def summarize(
    results: Sequence[Result], suite: Suite | None = None, *, count: int = RESAMPLES
) -> Summary:
    """Build the table of results and compare each model with the first.

    A suite orders the columns and adds published values.

    Raises:
        DataError: If two results share a cell, the data of a column differ, or a result does not
            belong to the suite.
    """
    _check(results, suite)
    columns = list(dict.fromkeys(map(_column, results)))
    if suite is not None:
        columns.sort(key=lambda column: suite.benchmarks.index(column.benchmark))
    names = list(dict.fromkeys(result.name for result in results))
    by_cell = {(result.name, _column(result)): result for result in results}
    comparisons = {
        (name, column): compare([by_cell[names[0], column], by_cell[name, column]], count=count)
        for column in columns
        for name in names[1:]
        if (names[0], column) in by_cell and (name, column) in by_cell
    }
    p_values = [comparison.contrasts[0].paired.p for comparison in comparisons.values()]
    corrected = dict(zip(comparisons, holm(p_values), strict=True))
    rows = []
    for name in names:
        cells = {}
        for column in (column for column in columns if (name, column) in by_cell):
            key, result = (name, column), by_cell[name, column]
            pair = comparisons.get(key)
            cells[column] = Cell(
                value=result.metrics[result.headline],
                measured=pair.results[1] if pair else with_intervals(result, count=count),
                contrast=pair.contrasts[0] if pair else None,
                p_corrected=corrected.get(key),
            )
        average = _average(cells, columns, suite)
        rows.append(Row(name=name, published=False, cells=cells, average=average))
    return Summary(
        title=suite.title if suite else "Results",
        columns=tuple(columns),
        rows=(*rows, *(_published_rows(columns, suite) if suite else ())),
        warnings=_warnings(results, columns, suite),
    )


def _column(result: Result) -> Column:
    return Column(result.benchmark, result.title, result.protocol.label, result.headline)


def _check(results: Sequence[Result], suite: Suite | None) -> None:
    problems = []
    counts = Counter((result.name, _column(result)) for result in results)
    for (name, column), number in counts.items():
        if number > 1:
            text = f"got {number} results of '{name}' by {column.protocol}"
            remedy = "Use one per model, benchmark and protocol"
            problems.append(Problem(column.benchmark, text, remedy))
    first: dict[Column, Result] = {}
    for result in results:
        other = first.setdefault(_column(result), result)
        if other.data.sha256 != result.data.sha256:
            text = f"'{result.name}' and '{other.name}' were scored on different data"
            problems.append(Problem(result.benchmark, text, "Score both on the same data"))
        if suite is not None:
            problems += _check_suite(result, suite)
    if problems:
        raise DataError(problems)


def _check_suite(result: Result, suite: Suite) -> list[Problem]:
    problems = []
    part = result.data.sha256.partition("-")[2]
    expected = "" if suite.limit is None else f"{suite.limit}-{suite.seed}"
    small = suite.limit is not None and result.metrics["n_clusters"] <= suite.limit
    if part != expected and not small:  # a small benchmark is always scored completely
        text = f"'{result.name}' was scored on {'part of' if part else 'all of'} the data"
        remedy = f"Score it {f'with --limit {suite.limit}' if expected else 'without --limit'}"
        problems.append(Problem(result.benchmark, text, remedy))
    if result.benchmark not in suite.benchmarks:
        text = f"not a benchmark of the suite '{suite.id}'"
        remedy = f"Remove it; the suite contains {', '.join(suite.benchmarks)}"
        problems.append(Problem(result.benchmark, text, remedy))
    elif result.protocol.id != suite.protocol:
        text = f"scored by {result.protocol.label}, but the suite's protocol is {suite.protocol}"
        remedy = f"Score it again with --protocol {suite.protocol}"
        problems.append(Problem(f"{result.benchmark} of '{result.name}'", text, remedy))
    return problems


def _average(
    cells: Mapping[Column, Cell], columns: Sequence[Column], suite: Suite | None
) -> float | None:
    """Return the mean of rounded headline metrics if all benchmarks of the suite are present."""
    if suite is None or suite.average is None or len(cells) < len(suite.benchmarks):
        return None
    values = [round(cells[column].value, suite.average) for column in columns]
    return sum(values) / len(values)


def _published_rows(columns: Sequence[Column], suite: Suite) -> list[Row]:
    """Return the published values of columns that show the published metric."""
    scoring = load_protocol(suite.protocol).scoring
    usual = [
        c for c in columns if c.headline == load_benchmark(c.benchmark).scorer(scoring).headline
    ]
    return [
        Row(
            name=row.name,
            published=True,
            cells={
                c: Cell(value=row.values[c.benchmark]) for c in usual if c.benchmark in row.values
            },
        )
        for row in suite.published
    ]


def _warnings(
    results: Sequence[Result], columns: Sequence[Column], suite: Suite | None
) -> tuple[str, ...]:
    warnings = list(suite.warnings if suite else ())
    weights: dict[str, dict[str, str]] = {}
    for result in results:
        if result.manifest.get("weights"):
            weights.setdefault(result.name, {})[str(result.manifest["weights"])] = result.benchmark
    for name, benchmarks in weights.items():
        if len(benchmarks) > 1:
            warnings.append(
                f"the row '{name}' mixes {len(benchmarks)} different checkpoints "
                f"({', '.join(benchmarks.values())}): use --name to give them unique names"
            )
    if suite is not None:
        present = {column.benchmark for column in columns}
        absent = [name for name in suite.benchmarks if name not in present]
        if absent:
            warnings.append(f"the suite's benchmarks without a result: {', '.join(absent)}")
    for result in results:
        where = f"{result.benchmark} of '{result.name}'"
        warnings += [f"{where}: {warning}" for warning in result.warnings]
    return tuple(warnings)
