"""What there is, in the terminal: benchmarks with their data, protocols, prompts, suites, tools."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..benchmark import benchmark_names, load_benchmark
from ..bridges import bridge_names, load_bridge
from ..data_check import Found, labels
from ..prompts import load_prompts, prompt_names
from ..protocols import load_protocol, protocol_names
from ..suites import load_suite, suite_names

__all__ = ["print_benchmarks", "print_data"]


def print_benchmarks(console: Console) -> None:
    """Prints all benchmarks with the rules that they have, and whatever else has a name."""
    benchmarks = map(load_benchmark, benchmark_names())
    _print(
        console,
        ("benchmark", "what it is", "rules", "usual file"),
        ((b.name, b.title, ", ".join(b.families), b.files[0]) for b in benchmarks),
    )
    protocols = map(load_protocol, protocol_names())
    _print(
        console,
        ("protocol", "what it is", "rules", "prompts"),
        ((p.label, p.title, p.scoring, ", ".join(sorted({*p.prompt.values()}))) for p in protocols),
    )
    prompts = map(load_prompts, prompt_names())
    _print(
        console,
        ("prompt", "what it is", "kinds of questions"),
        ((p.label, p.title, ", ".join(p.kinds)) for p in prompts),
    )
    suites = map(load_suite, suite_names())
    _print(
        console,
        ("suite", "what it is", "benchmarks"),
        ((s.id, s.title, ", ".join(s.benchmarks)) for s in suites),
    )
    bridges = map(load_bridge, bridge_names())
    _print(
        console,
        ("tool", "what it is", "files"),
        ((b.name, b.title, _ways(b.endings, bool(b.read))) for b in bridges),
    )


def _ways(endings: Sequence[str], reads: bool) -> str:
    written = [f"export {' '.join(endings)}"] if endings else []
    return ", ".join([*written, *(["import"] * reads)])


def _print(console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None)
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


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
