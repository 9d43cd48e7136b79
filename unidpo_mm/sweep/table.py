"""The results of a sweep as a table: mean and standard error over seeds."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .run import Results, Run
from .runner import Metric

__all__ = ["as_csv", "as_markdown", "as_table"]


def as_table(results: Results, metrics: Mapping[str, Metric], *, title: str) -> Table:
    """Return a table for a terminal, with one row per arm and one column per metric."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    titles, *rows = _rows(results, metrics)
    for column in titles[1:]:
        table.add_column(column, justify="right")
    for arm, *cells in rows:
        table.add_row(Text(arm), *cells)
    return table


def as_markdown(results: Results, metrics: Mapping[str, Metric]) -> str:
    """Return the same table as Markdown."""
    titles, *rows = _rows(results, metrics)
    line = ["---", *("---:" for _ in titles[1:])]
    return "".join(f"| {' | '.join(row)} |\n" for row in (titles, line, *rows))


def as_csv(runs: Sequence[Run]) -> str:
    """Return a line for each finished run: seed, arm and all its metrics, unrounded."""
    finished = [run for run in runs if run.values]
    names = list(dict.fromkeys(name for run in finished for name in run.values or ()))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["seed", "arm", *names])
    for run in finished:
        values = run.values or {}
        writer.writerow([run.seed, run.arm, *(values.get(name, "") for name in names)])
    return stream.getvalue()


def _rows(results: Results, metrics: Mapping[str, Metric]) -> list[list[str]]:
    """Return titles and cells of the metrics that at least one arm has."""
    used = [name for name in metrics if any(name in values for values in results.values())]
    rows = [["", *(metrics[name].title for name in used)]]
    for arm, values in results.items():
        rows.append([arm, *(cell(values.get(name, ()), metrics[name]) for name in used)])
    return rows


def cell(values: Sequence[float], metric: Metric) -> str:
    """Return ``mean ± standard error``, or only the mean of a single seed."""
    if not values:
        return ""
    scale, digits = (100, 0) if metric.percent else (1, 2)
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{scale * mean:.{digits}f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    error = math.sqrt(variance / len(values))
    return f"{scale * mean:.{digits}f} ± {scale * error:.{digits}f}"
