"""Results in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..results.comparison import Comparison
from ..results.result import Result
from ..results.summary import Summary
from . import tables

COUNTS = frozenset({"n", "n_clusters", "missing", "subtasks_present"})
FINE = frozenset({"mean_margin", "median_margin", "mean_chosen_logp", "mean_rejected_logp"})


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
    no_wrap: bool = False,
) -> None:
    """Print a table with text columns on the left and columns of numbers on the right."""
    table = Table(box=None)
    for number, name in enumerate(header):
        is_number = number >= text_columns
        table.add_column(
            escape(name),
            justify="right" if is_number else "left",
            no_wrap=no_wrap and is_number,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_notes(console: Console, notes: Sequence[str], *, style: str = "") -> None:
    """Print one paragraph per note."""
    for note in notes:
        console.print(escape(note), style=style, soft_wrap=True)


def print_result(result: Result, console: Console) -> None:
    """Print every metric and the warnings."""
    _print_title(result, console, of=result.name)
    table = Table(box=None)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result.metrics.items():
        digits = 0 if name in COUNTS else 4 if name in FINE else 2
        style = "bold" if name == result.headline else ""
        table.add_row(escape(name), f"{value:.{digits}f}", style=style)
    console.print(table)
    reasoning = result.reasoning
    if reasoning.responses:
        text = f"reasoning: in {reasoning.responses} responses, unclosed in {reasoning.unclosed}, "
        text += f"removed from {reasoning.removed} ({reasoning.description})"
        print_notes(console, [text])
    print_notes(console, result.warnings, style="yellow")


def print_comparison(comparison: Comparison, metrics: Sequence[str], console: Console) -> None:
    """Print a row per metric and result, and the tests."""
    _print_title(comparison.first, console)
    rows, previous = [], ""
    for metric, *cells in tables.comparison_rows(comparison, metrics):
        rows.append(["" if metric == previous else metric, *cells])
        previous = metric
    print_table(console, tables.COLUMNS, rows, text_columns=2, no_wrap=True)
    print_notes(console, tables.comparison_notes(comparison))


def print_summary(summary: Summary, console: Console) -> None:
    """Print a row per model, then every number with its interval."""
    console.print(f"[bold]{escape(summary.title)}[/bold]")
    print_table(console, tables.summary_header(summary), tables.summary_rows(summary))
    print_notes(console, tables.summary_notes(summary))
    print_notes(console, summary.warnings, style="yellow")


def _print_title(result: Result, console: Console, *, of: str = "") -> None:
    title = f"{result.title}, {result.protocol.title} ({result.protocol.label})"
    suffix = escape(f": {of}") if of else ""
    console.print(f"[bold]{escape(title)}[/bold]{suffix}", soft_wrap=True)
