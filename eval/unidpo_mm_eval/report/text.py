"""Results in the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..results.comparison import Comparison
from ..results.result import Reasoning, Result
from ..results.summary import Summary
from .summary_tables import details, headings, summary_rows
from .tables import COLUMNS, comparison_rows, notes

__all__ = [
    "print_comparison",
    "print_result",
    "print_summary",
]

LEFT = 2
"""Columns of words; the others are numbers."""
COUNTS = frozenset({"n", "n_clusters", "missing", "subtasks_present"})
FINE = frozenset({"mean_margin", "median_margin", "mean_chosen_logp", "mean_rejected_logp"})


def print_result(result: Result, console: Console) -> None:
    """Prints every metric, and what should be known beside them."""
    title = f"{result.title}, {result.protocol.title} ({result.protocol.label})"
    console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    table = Table(box=None)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result.metrics.items():
        style = "bold" if name == result.headline else ""
        digits = 0 if name in COUNTS else 4 if name in FINE else 2
        table.add_row(escape(name), f"{value:.{digits}f}", style=style)
    console.print(table)
    if result.reasoning.responses:
        console.print(escape(_reasoning(result.reasoning)), soft_wrap=True)
    for warning in result.warnings:
        console.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)


def _reasoning(reasoning: Reasoning) -> str:
    return (
        f"reasoning: in {reasoning.responses} responses, unclosed in {reasoning.unclosed}, "
        f"removed from {reasoning.removed} ({reasoning.description})"
    )


def print_comparison(found: Comparison, metrics: Sequence[str], console: Console) -> None:
    """Prints a row for each metric and result, and what the tests say."""
    title = f"{found.first.title}, {found.first.protocol.title} ({found.first.protocol.label})"
    console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    table = Table(box=None)
    for number, name in enumerate(COLUMNS):
        numbers = number >= LEFT
        table.add_column(
            name, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold"
        )
    before = ""
    for metric, *cells in comparison_rows(found, metrics):
        table.add_row(*map(escape, ("" if metric == before else metric, *cells)))
        before = metric
    console.print(table)
    for note in notes(found):
        console.print(escape(note), soft_wrap=True)


def print_summary(found: Summary, console: Console) -> None:
    """Prints a row for each checkpoint, then every number with its interval."""
    console.print(f"[bold]{escape(found.title)}[/bold]")
    table = Table(box=None)
    for number, name in enumerate(headings(found)):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in summary_rows(found):
        table.add_row(*map(escape, row))
    console.print(table)
    for text in details(found):
        console.print(escape(text), soft_wrap=True)
    for warning in found.warnings:
        console.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)
