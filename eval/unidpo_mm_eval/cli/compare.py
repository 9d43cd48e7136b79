"""`unidpo-mm eval compare`: results of one benchmark side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..results.comparison import Comparison

__all__ = ["compare_results"]


def compare_results(  # noqa: PLR0917, one parameter an option
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Results of one benchmark; the first is compared with.", metavar="A B..."
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help="Show every metric, not the headline alone.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="The benchmark's data, for pictures.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with every sample.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table as CSV.", show_default=False)
    ] = None,
    as_json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every number as JSON.", show_default=False)
    ] = None,
    pictures: Annotated[int, typer.Option(help="Most pictures on the page.", min=0)] = 500,
) -> None:
    """Compare checkpoints on the same samples: intervals, tests, and who is right where."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable, write

    from ..report.page import comparison_page
    from ..report.tables import as_csv, as_json, as_markdown
    from ..report.text import print_comparison
    from ..results.comparison import compare
    from ..results.result import read_result

    if len(results) < 2:
        raise typer.BadParameter("two results at least are compared", param_hint="A B...")
    outputs = {"--html": html, "--markdown": markdown, "--csv": csv, "--json": as_json_file}
    for option, path in outputs.items():
        check_writable(path, option)
    found = compare([read_result(path) for path in results])
    shown = metrics_shown(found, every=every)
    print_comparison(found, shown, Console())
    if markdown is not None:
        write(markdown, as_markdown(found, shown), "--markdown")
    if csv is not None:
        write(csv, as_csv(found, metrics_shown(found, every=True)), "--csv")
    if as_json_file is not None:
        write(as_json_file, as_json(found), "--json")
    if html is not None:
        page = comparison_page(found, shown, data=data, pictures=pictures)
        write(html, page, "--html")


def metrics_shown(found: "Comparison", *, every: bool) -> list[str]:
    """Returns the headline, or every metric that is no count."""
    first = found.results[0]
    return list(first.intervals) if every else [first.result.headline]
