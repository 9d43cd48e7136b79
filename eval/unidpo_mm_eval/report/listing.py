"""What there is, in the terminal: benchmarks with their data, protocols, prompts, suites, tools."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion

from ..benchmarks import benchmark_names, load_benchmark
from ..bridges import bridge_names, load_bridge
from ..prompts import load_prompts, prompt_names
from ..protocols import load_protocol, protocol_names
from ..run.data_check import Found, labels
from ..suites import load_suite, suite_names

__all__ = ["KINDS", "Entry", "listed", "print_data", "print_names"]


@dataclass(frozen=True)
class Entry:
    """One name that a command takes.

    Attributes:
        name: As it is typed.
        title: What it is.
        details: Further lines.
    """

    name: str
    title: str
    details: tuple[str, ...] = ()


def listed(part: str | None = None, kind: str | None = None) -> dict[str, list[Entry]]:
    """Return what has a name, by kind.

    Args:
        part: A part of the name or title; None for all.
        kind: One of `KINDS`; None for all.

    Raises:
        RecipeError: If there is no such kind, or no such name.
    """
    if kind is not None and kind not in KINDS:
        text = f"unknown kind '{kind}'{suggestion(kind, tuple(KINDS))}"
        raise RecipeError(Problem("--kind", text, f"Choose one of {', '.join(KINDS)}"))
    names = {name: KINDS[name]() for name in KINDS if kind in (None, name)}
    if part is None:
        return names
    words = part.lower()
    matching = {
        name: [entry for entry in entries if words in f"{entry.name} {entry.title}".lower()]
        for name, entries in names.items()
    }
    if not any(matching.values()):
        every = tuple(entry.name for entries in names.values() for entry in entries)
        text = f"no name contains '{part}'{suggestion(part, every)}"
        raise RecipeError(Problem("NAME", text, "Run `unidpo-mm eval list` for all names"))
    return {name: entries for name, entries in matching.items() if entries}


def print_names(names: Mapping[str, Sequence[Entry]], console: Console) -> None:
    """Print names with what they are, at any width without breaking a word."""
    for number, (kind, entries) in enumerate(names.items()):
        if number:
            console.print()
        console.print(f"[bold]{PLURALS[kind]}[/bold]")
        width = max(len(entry.name) for entry in entries)
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(min_width=min(width, WIDEST), overflow="fold")
        table.add_column()
        for entry in entries:
            text = "\n".join([entry.title, *entry.details])
            table.add_row(escape(entry.name), escape(text))
        console.print(table)


def _benchmarks() -> list[Entry]:
    protocols = [load_protocol(name) for name in protocol_names()]
    return [
        Entry(
            entry.name,
            entry.title,
            (
                "protocols: " + ", ".join(p.id for p in protocols if p.scoring in entry.families),
                f"file: {entry.files[0]}",
            ),
        )
        for entry in map(load_benchmark, benchmark_names())
    ]


def _protocols() -> list[Entry]:
    return [
        Entry(
            entry.label, entry.title, (f"prompts: {', '.join(sorted({*entry.prompt.values()}))}",)
        )
        for entry in map(load_protocol, protocol_names())
    ]


def _prompts() -> list[Entry]:
    return [
        Entry(entry.label, entry.title, (f"questions: {', '.join(entry.kinds)}",))
        for entry in map(load_prompts, prompt_names())
    ]


def _suites() -> list[Entry]:
    return [
        Entry(entry.id, entry.title, (f"benchmarks: {', '.join(entry.benchmarks)}",))
        for entry in map(load_suite, suite_names())
    ]


def _tools() -> list[Entry]:
    return [
        Entry(entry.name, entry.title, (_ways(entry.endings, bool(entry.read)),))
        for entry in map(load_bridge, bridge_names())
    ]


KINDS: Mapping[str, Callable[[], list[Entry]]] = {
    "benchmark": _benchmarks,
    "protocol": _protocols,
    "prompt": _prompts,
    "suite": _suites,
    "tool": _tools,
}
"""What `eval list` lists."""
PLURALS = {
    "benchmark": "Benchmarks",
    "protocol": "Protocols",
    "prompt": "Prompt profiles",
    "suite": "Suites",
    "tool": "Other tools",
}
WIDEST = 26
"""Columns for a name on a narrow terminal."""


def _ways(endings: Sequence[str], reads: bool) -> str:
    written = [f"export {' '.join(endings)}"] if endings else []
    return ", ".join([*written, *(["import"] * reads)])


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
