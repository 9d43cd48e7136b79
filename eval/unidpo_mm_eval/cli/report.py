"""`unidpo-mm eval report`: several checkpoints and benchmarks in one table."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report_results"]


def report_results(
    results: Annotated[
        list[Path],
        typer.Argument(help="Results of checkpoints, or folders of some.", metavar="RESULT..."),
    ],
    suite: Annotated[
        str | None,
        typer.Option(help="Order of the columns and published rows.", show_default=False),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.", show_default=False)] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every number as CSV.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write every number as JSON.", show_default=False)
    ] = None,
) -> None:
    """Put results of several checkpoints and benchmarks into one table, beside published values."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable, write

    from ..report.page import summary_page
    from ..report.summary_tables import summary_csv, summary_json, summary_markdown
    from ..report.text import print_summary
    from ..results.result import read_result
    from ..results.summary import summarise
    from ..suites import load_suite

    outputs = {"--html": html, "--markdown": markdown, "--csv": csv, "--json": json}
    for option, path in outputs.items():
        check_writable(path, option)
    found = summarise(
        [read_result(path) for path in _files(results)],
        None if suite is None else load_suite(suite),
    )
    print_summary(found, Console())
    writers = {"--html": summary_page, "--markdown": summary_markdown, "--csv": summary_csv}
    writers["--json"] = summary_json
    for option, path in outputs.items():
        if path is not None:
            write(path, writers[option](found), option)


def _files(paths: list[Path]) -> list[Path]:
    """Returns the results: files as they are named, and those in folders."""
    found = [sorted(path.rglob("*.json")) if path.is_dir() else [path] for path in paths]
    return [path for own in found for path in own]
