"""Print the results of a data check as tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..errors import counted, grouped
from .report import CheckReport, Summary, VideoReport

__all__ = ["print_report"]

MAX_PROBLEMS = 50
"""Lines of problems that an error prints; the JSON contains all problems."""


def print_report(report: CheckReport, console: Console) -> None:
    """Print the tables and warnings of a check; problems are the error of the command."""
    console.print(_sources(report))
    console.print(_table("Rows", ("name", "value"), (), _facts(report), show_header=False))
    if report.scores:
        console.print(_scores(report))
    for line in _weights(report):
        console.print(line)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if not report.problems:
        console.print("[green]No problems found.[/green]")
        return
    number = counted(len(report.problems), "problem")
    cut = len(grouped(report.problems)) > MAX_PROBLEMS
    hint = "; --json FILE writes all of them" if cut else ""
    console.print(f"[bold red]{number}[/bold red]: a run would not start{hint}")


def _table(
    title: str,
    columns: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    show_header: bool = True,
) -> Table:
    """Return a table whose last columns, `numbers`, are aligned to the right."""
    right = [Column(name, justify="right") for name in numbers]
    table = Table(*columns, *right, title=title, title_justify="left", show_header=show_header)
    for row in rows:
        table.add_row(*row)
    return table


def _sources(report: CheckReport) -> Table:
    rows = [
        (
            escape(source.name) + (" (held out)" if source.evaluation else ""),
            ", ".join(source.formats) or "-",
            escape(source.judge or "-"),
            "-" if source.scale is None else f"{source.scale[0]:g} to {source.scale[1]:g}",
            f"{source.records:,}",
            f"{source.rows:,}",
            f"{source.problems:,}",
        )
        for source in report.sources
    ]
    names = ("source", "format", "judge", "scale"), ("records", "rows", "problems")
    return _table("Sources", *names, rows)


def _facts(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "rows", f"{report.rows:,} ({_counted(report.domains)})"
    yield (
        "pairs",
        f"{report.pairs:,} of {report.responses:,} responses to {report.prompts:,} prompts",
    )
    if report.labels:
        yield "labels", f"{report.labels:,} of single responses"
    if report.pairs:
        yield "pairs per prompt", _spread(report.pairs_per_prompt, "prompts")
    lengths = report.lengths
    if lengths is not None:
        unit = lengths.unit
        yield f"prompt, {unit}", _summed(lengths.prompt)
        yield f"response, {unit}", _summed(lengths.response)
        yield f"row, {unit}", _summed(lengths.row)
        rho = lengths.margin_correlation
        suffix = "" if rho is None else f"; score margin and length: rho = {rho:.2f}"
        if report.pairs:
            yield (
                "longer response chosen",
                f"{100 * lengths.chosen_longer:.0f} % of the pairs, "
                f"{100 * lengths.equal:.0f} % are of equal length{suffix}",
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
    yield from _videos(report.videos)


def _videos(videos: VideoReport) -> Iterator[tuple[str, str]]:
    if videos.distinct or videos.broken:
        yield "videos per row", _spread(videos.per_row, "rows")
        yield "distinct videos", f"{videos.distinct:,}, {videos.broken:,} broken"
    summaries = {
        "seconds per video": videos.seconds,
        "sampled frames": videos.frames,
        "megapixels of a frame": videos.megapixels,
        "video tokens per row": videos.tokens,
    }
    for name, summary in summaries.items():
        if summary is not None:
            yield name, _summed(summary)


def _scores(report: CheckReport) -> Table:
    rows = [
        (
            escape(score.source),
            f"{score.scored:,} of {score.pairs:,}",
            *map(_short, (score.chosen, score.rejected, score.margin, score.w_qual)),
            f"{100 * score.effective_share:.0f} %",
            f"{100 * score.good:.0f} % >= {score.tau_good:g}",
            f"{100 * score.misordered:.1f} %",
            f"{100 * score.ties:.1f} %",
        )
        for score in report.scores
    ]
    numbers = "scored,chosen,rejected,margin,w_qual,eff. size,good,wrong order,ties".split(",")
    return _table("Scores and initial weights", ["source"], numbers, rows)


def _weights(report: CheckReport) -> Iterator[str]:
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
