"""Commands about benchmarks and their data: `unidpo-mm eval list` and `eval data check`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt

if TYPE_CHECKING:
    from rich.console import Console

    from ..run.data_check import DataReport

PROBLEMS = 1
"""Exit code if data are missing or broken."""
NAME_WIDTH = 26
"""Maximum width of a name on a narrow terminal."""

KINDS = {
    "benchmark": "Benchmarks",
    "scorer": "Scorers of installed packages",
    "protocol": "Protocols",
    "prompt": "Prompt profiles",
    "suite": "Suites",
    "tool": "Other tools",
}
"""Kind of name -> heading."""

data_commands = typer.Typer(help="Check the data of benchmarks.", no_args_is_help=True)


def run_list(
    name: Annotated[
        str | None,
        typer.Argument(help="Part of a name or title.", metavar="NAME", show_default=False),
    ] = None,
    kind: Annotated[
        str | None, opt.option("Kind to list: benchmark, scorer, protocol, prompt, suite or tool.")
    ] = None,
) -> None:
    """List benchmarks with their protocols and files, protocols, prompts, suites and tools."""
    from rich.console import Console

    print_catalog(catalog(name, kind), Console())


@data_commands.command(
    "check",
    epilog="Example: unidpo-mm eval data check --suite paper_multimodal --data benchmarks/",
)
def check_data(
    data: Annotated[
        Path,
        typer.Option(help="Data of the benchmark: a file or directory; of a suite: a directory."),
    ],
    benchmark: Annotated[
        str | None,
        opt.option("Name of a benchmark, or a Python file; see `eval list`.", "--benchmark", "-b"),
    ] = None,
    suite: Annotated[
        str | None, opt.option("Name of a suite, whose files are in the directory.")
    ] = None,
    images: opt.Images = None,
    open_images: Annotated[bool, typer.Option(help="Open every image.")] = True,
) -> None:
    """Report which data exist, their format, completeness and hash.

    The exit code is 0 if everything can be scored, and 1 if something is missing or broken.
    """
    from rich.console import Console

    from ..benchmarks import load_benchmark
    from ..run.data_check import check_file, check_folder
    from ..suites import load_suite

    if (benchmark is None) == (suite is None):
        raise typer.BadParameter("expected either --benchmark or --suite")
    if benchmark is not None:
        kind = load_benchmark(benchmark)
        reports = [check_file(kind, data, images=images, open_images=open_images)]
    else:
        members = [load_benchmark(name) for name in load_suite(str(suite)).benchmarks]
        reports = check_folder(members, data, images=images, open_images=open_images)
    _print_reports(reports, Console())
    if any(report.problems for report in reports):
        raise typer.Exit(PROBLEMS)


def _print_reports(reports: Sequence["DataReport"], console: "Console") -> None:
    """Print the state of each benchmark, then everything that is wrong or unusual."""
    from rich.markup import escape
    from rich.table import Table

    from ..report.text import print_notes

    table = Table(box=None)
    for column in ("benchmark", "file", "rows", "images", "sha256"):
        table.add_column(column, overflow="fold")
    for report in reports:
        if report.data is None:
            state = "[red]cannot be read[/red]" if report.path else "[red]missing[/red]"
            table.add_row(report.benchmark.name, escape(str(report.path or "")), state, "", "")
            continue
        samples = report.data.samples
        count = f"{len({image.key for sample in samples for image in sample.images}):,}"
        if report.data.references:
            count += f" ({report.data.references:,} references)"
        cells = (str(report.path), f"{len(samples):,}", count, report.data.sha256[:12])
        table.add_row(report.benchmark.name, *map(escape, cells))
    console.print(table)
    for report in reports:
        name = report.benchmark.name
        labels = []
        for label, counts in report.labels().items():
            values = ", ".join(f"{value} {count:,}" for value, count in sorted(counts.items()))
            labels.append(f"{name}, {label}: {values}")
        print_notes(console, labels)
        print_notes(console, [f"{name}: {note}" for note in report.notes], style="yellow")
        print_notes(console, list(map(str, report.problems)), style="red")


@dataclass(frozen=True)
class Entry:
    """A name that a command accepts."""

    name: str
    title: str
    details: tuple[str, ...] = ()


def catalog(part: str | None = None, kind: str | None = None) -> dict[str, list[Entry]]:
    """Return all names by kind, optionally of one of `KINDS`, or with a part in name or title."""
    from unidpo_mm.errors import Problem, RecipeError
    from unidpo_mm.plugins import suggestion

    if kind is not None and kind not in KINDS:
        text = f"unknown kind '{kind}'{suggestion(kind, tuple(KINDS))}"
        raise RecipeError(Problem("--kind", text, f"Choose one of {', '.join(KINDS)}"))
    names = {name: _entries(name) for name in KINDS if kind in (None, name)}
    if part is None:
        return names
    matching = {
        name: [entry for entry in entries if part.lower() in f"{entry.name} {entry.title}".lower()]
        for name, entries in names.items()
    }
    if not any(matching.values()):
        every = tuple(entry.name for entries in names.values() for entry in entries)
        text = f"no name contains '{part}'{suggestion(part, every)}"
        raise RecipeError(Problem("NAME", text, "Run `unidpo-mm eval list` for all names"))
    return {name: entries for name, entries in matching.items() if entries}


def print_catalog(names: Mapping[str, Sequence[Entry]], console: "Console") -> None:
    """Print names with their titles, at any width without breaking a word."""
    from rich.markup import escape
    from rich.table import Table

    kinds = [kind for kind, entries in names.items() if entries or len(names) == 1]
    for number, kind in enumerate(kinds):
        entries = names[kind]
        if number:
            console.print()
        console.print(f"[bold]{KINDS[kind]}[/bold]")
        if not entries:
            console.print("none")
            continue
        width = max(len(entry.name) for entry in entries)
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(min_width=min(width, NAME_WIDTH), overflow="fold")
        table.add_column()
        for entry in entries:
            text = "\n".join([entry.title, *entry.details])
            table.add_row(escape(entry.name), escape(text))
        console.print(table)


def _entries(kind: str) -> list[Entry]:
    """Return the names of one of `KINDS`."""
    from unidpo_mm.plugins import plugin_names, summary

    from ..benchmarks import benchmark_names, load_benchmark
    from ..bridges import bridge_names, load_bridge
    from ..plugins import SCORERS
    from ..protocols import load_prompts, load_protocol, prompt_names, protocol_names
    from ..suites import load_suite, suite_names

    if kind == "tool":
        entries = []
        for bridge in map(load_bridge, bridge_names()):
            ways = [f"export {' '.join(bridge.endings)}"] if bridge.export else []
            ways += ["import"] if bridge.read else []
            entries.append(Entry(bridge.name, bridge.title, (", ".join(ways),)))
        return entries
    if kind == "scorer":
        return [Entry(name, summary(module)) for name, module in plugin_names(SCORERS).items()]
    if kind == "suite":
        suites = map(load_suite, suite_names())
        return [Entry(s.id, s.title, (_list("benchmarks", s.benchmarks),)) for s in suites]
    if kind == "prompt":
        profiles = map(load_prompts, prompt_names())
        return [Entry(p.label, p.title, (_list("questions", p.kinds),)) for p in profiles]
    protocols = [load_protocol(name) for name in protocol_names()]
    if kind == "protocol":
        prompts = [sorted({*p.prompt.values()}) for p in protocols]
        pairs = zip(protocols, prompts, strict=True)
        return [Entry(p.label, p.title, (_list("prompts", names),)) for p, names in pairs]
    entries = []
    for benchmark in map(load_benchmark, benchmark_names()):
        usable = _list("protocols", [p.id for p in protocols if p.scoring in benchmark.scorers])
        details = (usable, f"file: {benchmark.files[0]}")
        entries.append(Entry(benchmark.name, benchmark.title, details))
    return entries


def _list(title: str, names: Iterable[str]) -> str:
    return f"{title}: {', '.join(names)}"
