"""Print the results of a data check as tables."""

from collections.abc import Iterator, Mapping

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from ..errors import counted, grouped
from .report import CheckReport, Summary

__all__ = ["print_report"]

MAX_PROBLEMS = 50
"""Lines of problems that an error prints; the JSON contains all problems."""


def print_report(report: CheckReport, console: Console) -> None:
    """Print the tables and warnings of a check; problems are the error of the command."""
    for part in (*_tables(report), *_weights(report)):
        console.print(part)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if report.problems:
        number = counted(len(report.problems), "problem")
        hint = (
            "; --json FILE writes all of them"
            if len(grouped(report.problems)) > MAX_PROBLEMS
            else ""
        )
        console.print(f"[bold red]{number}[/bold red]: a run would not start{hint}")
    else:
        console.print("[green]No problems found.[/green]")


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
    table.add_column("name")
    table.add_column("value")
    for name, value in _facts(report):
        table.add_row(name, value)
    return table


def _facts(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "rows", f"{report.rows:,} ({_counted(report.domains)})"
    yield (
        "pairs",
        f"{report.pairs:,} of {report.responses:,} responses to {report.prompts:,} prompts",
    )
    yield "pairs per prompt", _spread(report.pairs_per_prompt, "prompts")
    lengths = report.lengths
    if lengths is not None:
        unit = lengths.unit
        yield f"prompt, {unit}", _summed(lengths.prompt)
        yield f"response, {unit}", _summed(lengths.response)
        yield f"row, {unit}", _summed(lengths.row)
        rho = lengths.margin_correlation
        suffix = "" if rho is None else f"; score margin and length: rho = {rho:.2f}"
        yield (
            "longer response chosen",
            f"{100 * lengths.chosen_longer:.0f} % of the pairs, {100 * lengths.equal:.0f} % are "
            f"of equal length{suffix}",
        )
        yield (
            f"{unit} saved",
            f"{lengths.sharing:.2f} x with shared prompts, {lengths.grouping:.2f} x "
            "with data.group_by_prompt",
        )
    images = report.images
    if images.distinct or images.broken:
        yield "images per row", _spread(images.per_row, "rows")
        formats = _counted(images.formats)
        yield "distinct images", f"{images.distinct:,} ({formats}), {images.broken:,} broken"
    if images.width is not None and images.height is not None:
        yield "width and height", f"{_summed(images.width)}; {_summed(images.height)}"
    if images.tokens is not None:
        yield "image tokens per row", _summed(images.tokens)


def _scores(report: CheckReport) -> Table:
    table = Table(title="Scores and initial weights", title_justify="left")
    table.add_column("source")
    for name in ("scored", "chosen", "rejected", "margin", "w_qual", "eff. size", "good"):
        table.add_column(name, justify="right")
    table.add_column("wrong order", justify="right")
    table.add_column("ties", justify="right")
    for score in report.scores:
        table.add_row(
            escape(score.source),
            f"{score.scored:,} of {score.pairs:,}",
            _short(score.chosen),
            _short(score.rejected),
            _short(score.margin),
            _short(score.w_qual),
            f"{100 * score.effective_share:.0f} %",
            f"{100 * score.good:.0f} % >= {score.tau_good:g}",
            f"{100 * score.misordered:.1f} %",
            f"{100 * score.ties:.1f} %",
        )
    return table


def _weights(report: CheckReport) -> Iterator[RenderableType]:
    weights = report.weights
    if weights is None:
        return
    yield (
        f"Initial weights of {weights.pairs} pairs under {escape(str(report.model))}: w_perf "
        f"{_short(weights.w_perf)}, effective size {100 * weights.effective_share:.0f} %"
    )
    for domain, share in weights.gradient_share.items():
        yield (
            f"  {domain}: {100 * share:.0f} % of the total weight from "
            f"{100 * weights.pair_share[domain]:.0f} % of the pairs"
        )


def _summed(summary: Summary) -> str:
    middle = f"5 to 95 %: {summary.p5:,.0f} to {summary.p95:,.0f}"
    return f"{summary.median:,.0f} ({middle}; maximum {summary.high:,.0f})"


def _short(summary: Summary) -> str:
    return f"{summary.median:.3g} ({summary.low:.3g} to {summary.high:.3g})"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _spread(counts: Mapping[int, int], noun: str) -> str:
    first = list(counts.items())[:6]
    rest = "" if len(counts) <= 6 else f", ... up to {max(counts)}"
    return ", ".join(f"{number}: {count:,} {noun}" for number, count in first) + rest
