"""A check as tables on the terminal."""

from collections.abc import Iterator, Mapping

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from ..errors import counted_problems, grouped
from .report import CheckReport, Summary

__all__ = ["print_report"]

SHOWN = 50
"""Lines of problems that an error prints; all problems are in the JSON."""


def print_report(report: CheckReport, console: Console) -> None:
    """Print the tables and warnings of a check; problems are the error of the command."""
    for part in (*_tables(report), *_weights(report)):
        console.print(part)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if report.problems:
        number = counted_problems(len(report.problems))
        hint = "; --json FILE lists them all" if len(grouped(report.problems)) > SHOWN else ""
        console.print(f"[bold red]{number}[/bold red]: a run would refuse the data{hint}")
    else:
        console.print("[green]No problem found.[/green]")


def _tables(report: CheckReport) -> Iterator[RenderableType]:
    yield _sources(report)
    yield _counts(report)
    if report.scores:
        yield _scores(report)


def _sources(report: CheckReport) -> Table:
    table = Table(title="Sources", title_justify="left")
    for name in ("source", "format", "judge", "scale"):
        table.add_column(name)
    for name in ("records", "rows", "problems"):
        table.add_column(name, justify="right")
    for source in report.sources:
        table.add_row(
            escape(source.name) + (" (held out)" if source.evaluation else ""),
            ", ".join(source.formats) or "-",
            escape(source.judge or "-"),
            "-" if source.scale is None else f"{source.scale[0]:g} to {source.scale[1]:g}",
            f"{source.records:,}",
            f"{source.rows:,}",
            f"{source.problems:,}",
        )
    return table


def _counts(report: CheckReport) -> Table:
    table = Table(title="Rows", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many")
    for what, found in _facts(report):
        table.add_row(what, found)
    return table


def _facts(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "rows", f"{report.rows:,} ({_counted(report.domains)})"
    yield "pairs", f"{report.pairs:,} of {report.responses:,} answers to {report.prompts:,} prompts"
    yield "pairs a prompt", _spread(report.pairs_per_prompt, "prompts")
    lengths = report.lengths
    if lengths is not None:
        unit = lengths.unit
        yield f"prompt, {unit}", _summed(lengths.prompt)
        yield f"answer, {unit}", _summed(lengths.answer)
        yield f"row, {unit}", _summed(lengths.row)
        rho = lengths.margin_correlation
        told = "" if rho is None else f"; score margin and length: rho = {rho:.2f}"
        yield (
            "longer answer wins",
            f"{100 * lengths.chosen_longer:.0f} % of the pairs, {100 * lengths.equal:.0f} % are "
            f"as long{told}",
        )
        yield (
            f"{unit} saved",
            f"{lengths.sharing:.2f} times fewer with shared prompts, {lengths.grouping:.2f} times "
            "with data.group_by_prompt",
        )
    images = report.images
    if images.distinct or images.broken:
        yield "images a row", _spread(images.per_row, "rows")
        kinds = _counted(images.kinds)
        yield "different images", f"{images.distinct:,} ({kinds}), {images.broken:,} broken"
    if images.width is not None and images.height is not None:
        yield "width and height", f"{_summed(images.width)}; {_summed(images.height)}"
    if images.tokens is not None:
        yield "tokens of images a row", _summed(images.tokens)


def _scores(report: CheckReport) -> Table:
    table = Table(title="Scores and first weights", title_justify="left")
    table.add_column("source")
    for name in ("scored", "chosen", "rejected", "margin", "w_qual", "eff. size", "good"):
        table.add_column(name, justify="right")
    table.add_column("wrong order", justify="right")
    table.add_column("ties", justify="right")
    for one in report.scores:
        table.add_row(
            escape(one.source),
            f"{one.scored:,} of {one.pairs:,}",
            _short(one.chosen),
            _short(one.rejected),
            _short(one.margin),
            _short(one.w_qual),
            f"{100 * one.effective_share:.0f} %",
            f"{100 * one.good:.0f} % >= {one.tau_good:g}",
            f"{100 * one.misordered:.1f} %",
            f"{100 * one.ties:.1f} %",
        )
    return table


def _weights(report: CheckReport) -> Iterator[RenderableType]:
    weights = report.weights
    if weights is None:
        return
    yield (
        f"First weights of {weights.pairs} pairs under {escape(str(report.model))}: w_perf "
        f"{_short(weights.w_perf)}, effective size {100 * weights.effective_share:.0f} %"
    )
    for domain, share in weights.gradient_share.items():
        yield (
            f"  {domain}: {100 * share:.0f} % of the gradient's weight from "
            f"{100 * weights.pair_share[domain]:.0f} % of the pairs"
        )


def _summed(found: Summary) -> str:
    middle = f"5 to 95 %: {found.p5:,.0f} to {found.p95:,.0f}"
    return f"{found.median:,.0f} ({middle}; most {found.high:,.0f})"


def _short(found: Summary) -> str:
    return f"{found.median:.3g} ({found.low:.3g} to {found.high:.3g})"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _spread(counts: Mapping[int, int], noun: str) -> str:
    first = list(counts.items())[:6]
    more = "" if len(counts) <= 6 else f", ... up to {max(counts)}"
    return ", ".join(f"{number}: {count:,} {noun}" for number, count in first) + more
