"""Commands that read results: `unidpo-mm eval compare` and `report`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt

Outputs = dict[str, tuple[Path | None, Callable[[], str]]]
"""Option -> file, and what renders its content."""


def run_compare(  # noqa: PLR0917 - one parameter per option
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Results of one benchmark; the others are compared with the first.",
            metavar="RESULT",
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help="Show every metric, not only the headline.")
    ] = False,
    data: Annotated[
        Path | None, opt.option("Data of the benchmark, for images on the page.")
    ] = None,
    html: opt.Html = None,
    markdown: opt.Markdown = None,
    csv: opt.Csv = None,
    json: opt.Json = None,
    max_images: Annotated[
        int, typer.Option(help="Maximum number of images on the page.", min=0)
    ] = 500,
) -> None:
    """Compare results on the same samples: intervals, tests, and every sample side by side."""
    from rich.console import Console

    from ..report.page import comparison_page
    from ..report.tables import comparison_csv, comparison_json, comparison_markdown
    from ..report.text import print_comparison
    from ..results.comparison import compare
    from ..results.result import read_result

    if len(results) < 2:
        raise typer.BadParameter("expected at least two results", param_hint="RESULT")
    outputs: Outputs = {
        "--html": (
            html,
            lambda: comparison_page(comparison, metrics, data=data, max_images=max_images),
        ),
        "--markdown": (markdown, lambda: comparison_markdown(comparison, metrics)),
        "--csv": (csv, lambda: comparison_csv(comparison, all_metrics)),
        "--json": (json, lambda: comparison_json(comparison)),
    }
    _check(outputs)
    comparison = compare([read_result(path) for path in results])
    all_metrics = list(comparison.results[0].intervals)
    metrics = all_metrics if every else [comparison.first.headline]
    print_comparison(comparison, metrics, Console())
    _write(outputs)


def run_report(
    results: Annotated[
        list[Path], typer.Argument(help="Results, or directories of results.", metavar="RESULT")
    ],
    suite: Annotated[
        str | None, opt.option("Name of a suite with the columns and published values.")
    ] = None,
    html: opt.Html = None,
    markdown: opt.Markdown = None,
    csv: opt.Csv = None,
    json: opt.Json = None,
) -> None:
    """Show results of several models and benchmarks in one table, with published values."""
    from rich.console import Console

    from ..report.page import summary_page
    from ..report.tables import summary_csv, summary_json, summary_markdown
    from ..report.text import print_summary
    from ..results.result import read_result
    from ..results.summary import summarize
    from ..suites import load_suite

    outputs: Outputs = {
        "--html": (html, lambda: summary_page(summary)),
        "--markdown": (markdown, lambda: summary_markdown(summary)),
        "--csv": (csv, lambda: summary_csv(summary)),
        "--json": (json, lambda: summary_json(summary)),
    }
    _check(outputs)
    files = [
        file
        for path in results
        for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])
    ]
    summary = summarize(
        [read_result(file) for file in files], None if suite is None else load_suite(suite)
    )
    print_summary(summary, Console())
    _write(outputs)


def _check(outputs: Outputs) -> None:
    """Check that files can be written before anything is read."""
    from unidpo_mm.cli.outputs import check_writable

    for option, (path, _) in outputs.items():
        check_writable(path, option)


def _write(outputs: Outputs) -> None:
    from unidpo_mm.cli.outputs import write

    for option, (path, render) in outputs.items():
        if path is not None:
            write(path, render(), option)
