"""`unidpo-mm ledger`: what the weights of a run did, pair by pair."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import counted
from .outputs import check_writable, keep_sources, write

if TYPE_CHECKING:
    import polars

    from ..ledger.tables import Ledger

__all__ = ["ledger"]

TITLES = {
    "accuracy": "ranked right",
    "effective_by_weight": "effective (weight)",
    "effective_by_contribution": "effective (contribution)",
    "pair_weight": "weight",
}
"""Column -> its title; others lose their underscores."""

PERCENT = {"accuracy", "effective_by_weight", "effective_by_contribution", "nll_gate"}
"""Columns in percent, like all that start with ``share_``."""

ledger = typer.Typer(
    help="Look at the weight, contribution and margin of each pair of a run.",
    no_args_is_help=True,
)

Run = Annotated[
    Path,
    typer.Argument(
        help="Output directory of a run, finished or training, or the ledger in it.", metavar="RUN"
    ),
]

Periods = Annotated[
    int, typer.Option(help="Number of periods that training is divided into.", min=1)
]


@ledger.command("summary", epilog="Example: unidpo-mm ledger summary out")
def summary(
    run: Run,
    periods: Periods = 8,
) -> None:
    """Show weights, contributions and margins over time, by source, domain and length."""
    from ..ledger.tables import by_group, rank_correlation, read_ledger

    opened = read_ledger(run)
    _print_heading(opened)
    _print_periods(opened, periods)
    tables = {"By source": by_group(opened, "source"), "By domain": by_group(opened, "domain")}
    for title, groups in tables.items():
        if len(groups) > 1:
            _print(groups, title)
    _print(by_group(opened, "length"), "By number of tokens of the chosen response")
    correlations = rank_correlation(opened)
    if len(correlations):
        _print(correlations, "Rank correlation of score margin and reward margin")
    typer.echo(
        "\nThe contribution of a pair is |d loss / d reward margin|. Effective: the share of pairs "
        "which, if weighted equally, would have the same variance."
    )


@ledger.command("watch", epilog="Example: unidpo-mm ledger watch out --seconds 30")
def watch(
    run: Run,
    seconds: Annotated[float, typer.Option(help="Seconds between two looks.", min=1.0)] = 10.0,
    periods: Periods = 8,
) -> None:
    """Show the ledger of a run while it trains, until the run ends or Ctrl+C is pressed."""
    from ..ledger.files import OPEN
    from ..ledger.tables import read_ledger, top_pairs
    from ..training.checkpoints import CheckpointDamaged, read_manifest

    while True:
        opened = read_ledger(run)
        last = opened.visits.select("step").max().collect().item()
        try:
            finished = read_manifest(opened.folder.parent).step >= last
        except CheckpointDamaged:  # a run gets its manifest at the end
            finished = False
        finished = finished and not (opened.folder / OPEN).exists()
        if sys.stdout.isatty():
            typer.echo("\x1b[2J\x1b[H", nl=False)  # clear the screen
        _print_heading(opened)
        _print_periods(opened, periods)
        suspected = top_pairs(opened, "suspected", limit=5)
        if len(suspected):
            _print(suspected.drop("row_id").rename({"pair_id": "pair"}), "Suspected label errors")
        if finished:
            return
        time.sleep(seconds)


@ledger.command("top", epilog="Example: unidpo-mm ledger top out --suspected --limit 50")
def top(
    run: Run,
    suspected: Annotated[
        bool,
        typer.Option(
            "--suspected",
            help="List pairs ranked against the scores with confidence, as after a label error.",
        ),
    ] = False,
    hard: Annotated[
        bool, typer.Option("--hard", help="List pairs without a positive margin at the last visit.")
    ] = False,
    ignored: Annotated[
        bool, typer.Option("--ignored", help="List pairs with the smallest mean contribution.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Maximum number of pairs in a list.", min=1)] = 20,
) -> None:
    """List the pairs whose scores look wrong, that training did not learn, or that it ignored.

    Without --suspected, --hard or --ignored, all three lists are shown.
    """
    from ..ledger.tables import RANKINGS, Ranking, read_ledger, top_pairs

    flags: dict[Ranking, bool] = {"suspected": suspected, "hard": hard, "ignored": ignored}
    opened = read_ledger(run)
    for ranking in [name for name, flag in flags.items() if flag] or flags:
        table = top_pairs(opened, ranking, limit=limit)
        if not len(table):
            typer.echo(f"{run}: there are no {RANKINGS[ranking].partition(',')[0]}")
            continue
        ids = table.drop("row_id").rename({"pair_id": "pair"})
        _print(ids, f"{ranking}: {RANKINGS[ranking]}")


@ledger.command("quadrants", epilog="Example: unidpo-mm ledger quadrants out")
def show_quadrants(
    run: Run,
    periods: Periods = 3,
) -> None:
    """Show how pairs divide by quality and performance over training."""
    from ..ledger.tables import quadrants, read_ledger

    table = quadrants(read_ledger(run), periods=periods)
    if not len(table):
        typer.echo(f"{run}: no pair has scores and a reward margin")
        return
    _print(table, "High quality: the score margin is at least the median. Learned: margin > 0")


@ledger.command("pair", epilog="Example: unidpo-mm ledger pair out pairs:7")
def pair(
    run: Run,
    name: Annotated[
        str, typer.Argument(help="Id of a pair or its beginning, or the id of a row.", metavar="ID")
    ],
) -> None:
    """Show every visit of a pair."""
    from ..ledger.tables import pair_history, read_ledger

    opened = read_ledger(run)
    visits = pair_history(opened, name)
    first = visits.row(0, named=True)
    typer.echo(f"pair {first['pair_id']}, row {first['row_id']} of {first['source']}")
    sides = [
        f"{side} {first[f'score_{side}']:g}"
        for side in ("chosen", "rejected")
        if first[f"score_{side}"] is not None
    ]
    typer.echo(f"scores: {', '.join(sides) or 'none'}")
    columns = ("step", "epoch", "reward_margin", "loss", "contribution", *opened.terms)
    _print(visits.select(columns), counted(len(visits), "visit"))


@ledger.command("export", epilog="Example: unidpo-mm ledger export out --output visits.csv")
def export(
    run: Run,
    output: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
) -> None:
    """Write all visits into one file."""
    from ..ledger.files import DIRECTORY
    from ..ledger.tables import read_ledger

    writers = {".csv": "sink_csv", ".jsonl": "sink_ndjson", ".parquet": "sink_parquet"}
    if output.suffix not in writers:
        raise typer.BadParameter(f"use one of {', '.join(writers)}", param_hint="--output")
    check_writable(output, "--output")
    keep_sources(output, "--output", [str(run / DIRECTORY), str(run)])
    visits = read_ledger(run).visits.sort("step", "rank", "position")
    getattr(visits, writers[output.suffix])(output)
    typer.echo(f"wrote {output}")


@ledger.command("plot", epilog="Example: unidpo-mm ledger plot out --output weights.png")
def plot(
    run: Run,
    output: Annotated[Path, typer.Option(help="File to write: .png, .svg or .pdf.")],
) -> None:
    """Plot weights, contributions and margins over training, and scores against margins."""
    from ..ledger.plots import plot_ledger
    from ..ledger.tables import read_ledger

    if output.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter("use .png, .svg or .pdf", param_hint="--output")
    check_writable(output, "--output")
    plot_ledger(read_ledger(run), output)
    typer.echo(f"wrote {output}")


@ledger.command("html", epilog="Example: unidpo-mm ledger html out --output ledger.html")
def html(
    run: Run,
    output: Annotated[Path, typer.Option(help="File to write: .html.")],
    pairs: Annotated[
        int, typer.Option(help="Maximum number of pairs on the page.", min=1)
    ] = 20_000,
    excerpts: Annotated[
        int, typer.Option(help="Maximum number of pairs with texts and images.", min=0)
    ] = 400,
) -> None:
    """Write a page to look at the pairs: quadrants over time, lists, images and responses."""
    from ..lens import LensOptions, lens_page

    if output.suffix not in (".html", ".htm"):
        raise typer.BadParameter("use .html", param_hint="--output")
    check_writable(output, "--output")
    text = lens_page(run, LensOptions(max_pairs=pairs, max_excerpts=excerpts))
    write(output, text, "--output")
    typer.echo(f"wrote {output}: open it in a browser")


def _print_heading(opened: "Ledger") -> None:
    import polars as pl

    facts = opened.visits.select(
        pl.len().alias("visits"),
        pl.col("pair_id").n_unique().alias("pairs"),
        pl.col("step").min().alias("first"),
        pl.col("step").max().alias("last"),
        (~pl.col("applied")).sum().alias("skipped"),
    )
    values = facts.collect().row(0, named=True)
    typer.echo(
        f"{opened.folder}: {opened.loss.get('name')}, {counted(values['visits'], 'visit')} of "
        f"{counted(values['pairs'], opened.unit)} in steps {values['first']} to {values['last']}"
    )
    if values["skipped"]:
        typer.echo(f"{counted(values['skipped'], 'visit')} in steps that were skipped")


def _print_periods(opened: "Ledger", periods: int) -> None:
    """Print the alarms of a run, and its means over time."""
    import polars as pl

    from ..ledger.alarms import find_alarms, read_visits
    from ..ledger.tables import over_time

    for alarm in find_alarms(read_visits(opened.folder)):
        typer.echo(f"\n{alarm.name}: {alarm}")
    table = over_time(opened, periods=periods)
    steps = pl.format("{}-{}", "first_step", "last_step").alias("steps")
    _print(table.select(steps, pl.exclude("first_step", "last_step")), "Over time")


def _print(table: "polars.DataFrame", title: str) -> None:
    """Print a table with aligned columns."""
    columns = [_cells(name, values) for name, values in table.to_dict(as_series=False).items()]
    widths = [max(map(len, cells)) for cells in columns]
    typer.echo(f"\n{title}")
    for line in zip(*columns, strict=True):
        cells = (
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        typer.echo(f"  {'  '.join(cells)}".rstrip())


def _cells(name: str, values: list[Any]) -> list[str]:
    """Return the title of a column and its values as text."""
    title = TITLES.get(name, name.replace("_", " "))
    percent = name in PERCENT or name.startswith("share_")
    return [title, *(_cell(value, percent=percent) for value in values)]


def _cell(value: Any, *, percent: bool) -> str:
    if value is None:
        return ""
    if percent:
        return f"{value:.0%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
