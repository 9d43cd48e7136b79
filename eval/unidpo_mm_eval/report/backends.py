"""What `eval duel`, `parity` and `text` say in the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..models.template_variables import different_variables

if TYPE_CHECKING:
    from ..judge.duel import Duel
    from ..run.parity import Parity
    from ..run.text_tasks import TextResults

__all__ = ["print_duel", "print_parity", "print_text_results"]

LEFT = 2
"""Columns of words; the others are numbers."""


def print_duel(found: "Duel", console: Console) -> None:
    """Prints how a judge likes the second model beside the first."""
    title = f"{found.names[1]} against {found.names[0]}, judged by {found.judge}, both orders"
    console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    table = Table(box=None)
    for number, name in enumerate(("metric", "value", "interval")):
        table.add_column(name, justify="right" if number else "left")
    for name, value in found.metrics.items():
        own = found.intervals[name]
        table.add_row(name, f"{value:.2f}", f"{own.low:.2f} to {own.high:.2f}")
    console.print(table)
    console.print(f"both orders name the same winner: {found.consistent_rate:.1f} %")
    for note in found.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)


def print_parity(found: Sequence["Parity"], console: Console) -> None:
    """Prints how often two backends say the same, and score the same."""
    table = Table(box=None)
    names = ("benchmark", "n", "same answer", "same score", "here", "served")
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left")
    for one in found:
        values = [f"{result.metrics[result.headline]:.2f}" for result in one.results]
        counts = (one.n, one.same_answer, one.same_score)
        table.add_row(escape(one.benchmark), *map(str, counts), *values)
    console.print(table)
    for one in found:
        if one.first is not None:
            own, here, there = one.first
            text = f"{one.benchmark}, '{own}': {here[:200]!r} here, {there[:200]!r} served"
            console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True)


def print_text_results(found: Sequence["TextResults"], console: Console) -> None:
    """Prints what lm-eval says, by its own names: a row for each metric, a column a checkpoint."""
    table = Table(box=None)
    for number, name in enumerate(("task", "metric", *(one.model for one in found))):
        table.add_column(escape(name), justify="right" if number >= LEFT else "left")
    tasks = dict.fromkeys(task for one in found for task in one.results)
    for task in tasks:
        values = [one.results.get(task, {}) for one in found]
        names = dict.fromkeys(name for one in values for name in one)
        for name in (name for name in names if "," in name and "_stderr," not in name):
            error = name.replace(",", "_stderr,", 1)
            cells = [_with_error(one.get(name), one.get(error)) for one in values]
            table.add_row(escape(task), escape(name.removesuffix(",none")), *cells)
    console.print(table)
    for one in found:
        if (other := different_variables(one.settings)) is not None:
            console.print(f"[yellow]{escape(f'{one.model}: {other}')}[/yellow]", soft_wrap=True)


def _with_error(value: object, error: object) -> str:
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:.4f}" + (f" ± {error:.4f}" if isinstance(error, int | float) else "")
