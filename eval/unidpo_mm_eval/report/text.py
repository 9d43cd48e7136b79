"""Results in the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..benchmark import benchmark_names, load_benchmark
from ..bridges import bridge_names, load_bridge
from ..compare import Comparison
from ..data_check import Found, labels
from ..judge.duel import Duel
from ..protocols import load_protocol, protocol_names
from ..results import Result
from ..suites import load_suite, suite_names
from ..summary import Summary
from .summary_tables import details, headings, summary_rows
from .tables import COLUMNS, comparison_rows, notes

if TYPE_CHECKING:
    from ..engine.parity import Parity
    from ..text_tasks import TextResults

__all__ = [
    "print_benchmarks",
    "print_comparison",
    "print_data",
    "print_duel",
    "print_parity",
    "print_result",
    "print_summary",
    "print_text_results",
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
    for warning in result.warnings:
        console.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)


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


def print_duel(found: Duel, console: Console) -> None:
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


def _with_error(value: object, error: object) -> str:
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:.4f}" + (f" ± {error:.4f}" if isinstance(error, int | float) else "")


def print_data(found: Sequence[Found], console: Console) -> None:
    """Prints what is there of each benchmark, then everything that is wrong or odd."""
    table = Table(box=None)
    for column in ("benchmark", "file", "rows", "pictures", "sha256"):
        table.add_column(column, overflow="fold")
    for one in found:
        if one.data is None:
            state = "[red]cannot be read[/red]" if one.path else "[red]not there[/red]"
            table.add_row(one.benchmark.name, escape(str(one.path or "")), state, "", "")
            continue
        samples = one.data.samples
        pictures = {picture.key for sample in samples for picture in sample.pictures}
        shown = f"{len(pictures):,}"
        if one.data.references:
            shown += f" ({one.data.references:,} references)"
        cells = (str(one.path), f"{len(samples):,}", shown, one.data.sha256[:12])
        table.add_row(one.benchmark.name, *map(escape, cells))
    console.print(table)
    for one in found:
        for name, counts in (labels(one.data) if one.data else {}).items():
            values = ", ".join(f"{value} {count:,}" for value, count in sorted(counts.items()))
            console.print(escape(f"{one.benchmark.name}, {name}: {values}"), soft_wrap=True)
        for note in one.notes:
            text = f"{one.benchmark.name}: {note}"
            console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True)
        for problem in one.problems:
            console.print(f"[red]{escape(str(problem))}[/red]", soft_wrap=True)


def print_benchmarks(console: Console) -> None:
    """Prints all benchmarks with the rules that they have, protocols, suites and bridges."""
    table = Table(box=None)
    for column in ("benchmark", "what it is", "rules", "data"):
        table.add_column(column)
    for name in benchmark_names():
        one = load_benchmark(name)
        table.add_row(name, one.title, ", ".join(one.families), "; ".join(one.layouts))
    console.print(table)
    rules = Table(box=None)
    for column in ("protocol", "what it is", "rules"):
        rules.add_column(column)
    for name in protocol_names():
        protocol = load_protocol(name)
        rules.add_row(protocol.label, protocol.title, protocol.scoring)
    console.print(rules)
    suites = Table(box=None)
    for column in ("suite", "what it is", "benchmarks"):
        suites.add_column(column)
    for name in suite_names():
        suite = load_suite(name)
        suites.add_row(name, suite.title, ", ".join(suite.benchmarks))
    console.print(suites)
    bridges = Table(box=None)
    for column in ("tool", "what it is", "files"):
        bridges.add_column(column)
    for name in bridge_names():
        bridge = load_bridge(name)
        ways = [f"export {' '.join(bridge.endings)}"] if bridge.export else []
        bridges.add_row(name, bridge.title, ", ".join([*ways, *(["import"] * bool(bridge.read))]))
    console.print(bridges)
