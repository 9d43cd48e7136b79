"""`unidpo-mm eval`: score predictions on benchmarks, and compare checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .compare import Comparison

__all__ = ["evaluation"]

evaluation = typer.Typer(
    help="Score predictions on benchmarks and compare checkpoints.", no_args_is_help=True
)

data = typer.Typer(help="Look at the data of benchmarks.", no_args_is_help=True)
evaluation.add_typer(data, name="data")

PROBLEMS_FOUND = 1
"""Exit code where something is missing or broken."""


@evaluation.command("score")
def score_predictions(
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="Name of the benchmark; see `eval list`.")
    ],
    data: Annotated[Path, typer.Option(help="Its data: a file or folder.")],
    predictions: Annotated[
        Path, typer.Option(help='JSONL with one {"id": ..., "response": ...} a line.')
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write the result here, as JSON.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="The rules; the benchmark's first if left out.")
    ] = None,
    subset: Annotated[
        int | None,
        typer.Option(help="Clusters to score, drawn by a fixed seed.", min=1, show_default=False),
    ] = None,
) -> None:
    """Score a file of predictions: no model, no network, the same every time."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable

    from .benchmark import load_benchmark
    from .protocols import load_protocol
    from .reading.predictions import read_predictions
    from .reading.subset import subset as part_of
    from .report.text import print_result
    from .results import write_result
    from .scoring import score

    check_writable(output, "--output")
    found = load_benchmark(benchmark)
    rules = load_protocol(protocol or next(iter(found.families)))
    found.rules(rules.scoring)
    samples = found.read(data, False)
    if subset is not None:
        samples = part_of(samples, subset)
    result = score(found, samples, read_predictions(predictions), rules)
    if output is not None:
        write_result(result, output)
    print_result(result, Console())


@evaluation.command("compare")
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
    pictures: Annotated[int, typer.Option(help="Most pictures on the page.", min=0)] = 500,
) -> None:
    """Compare checkpoints on the same samples: intervals, tests, and who is right where."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable, write

    from .compare import compare
    from .report.page import comparison_page
    from .report.tables import as_csv, as_markdown
    from .report.text import print_comparison
    from .results import read_result

    if len(results) < 2:
        raise typer.BadParameter("two results at least are compared", param_hint="A B...")
    outputs = {"--html": html, "--markdown": markdown, "--csv": csv}
    for option, path in outputs.items():
        check_writable(path, option)
    found = compare([read_result(path) for path in results])
    shown = metrics_shown(found, every=every)
    print_comparison(found, shown, Console())
    if markdown is not None:
        write(markdown, as_markdown(found, shown), "--markdown")
    if csv is not None:
        write(csv, as_csv(found, metrics_shown(found, every=True)), "--csv")
    if html is not None:
        page = comparison_page(found, shown, data=data, pictures=pictures)
        write(html, page, "--html")


@evaluation.command("report")
def report_results(
    results: Annotated[
        list[Path], typer.Argument(help="Results of one or more checkpoints.", metavar="RESULT...")
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
) -> None:
    """Put results of several checkpoints and benchmarks into one table, beside published values."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable, write

    from .report.page import summary_page
    from .report.summary_tables import summary_csv, summary_markdown
    from .report.text import print_summary
    from .results import read_result
    from .suites import load_suite
    from .summary import summarise

    outputs = {"--html": html, "--markdown": markdown, "--csv": csv}
    for option, path in outputs.items():
        check_writable(path, option)
    found = summarise(
        [read_result(path) for path in results], None if suite is None else load_suite(suite)
    )
    print_summary(found, Console())
    writers = {"--html": summary_page, "--markdown": summary_markdown, "--csv": summary_csv}
    for option, path in outputs.items():
        if path is not None:
            write(path, writers[option](found), option)


def metrics_shown(found: "Comparison", *, every: bool) -> list[str]:
    """Returns the headline, or every metric that is no count."""
    first = found.results[0]
    return list(first.intervals) if every else [first.result.headline]


@data.command("check")
def check_data(
    path: Annotated[Path, typer.Option("--data", help="A file, or the folder of a benchmark.")],
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="One benchmark.", show_default=False)
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="A suite, whose files lie in the folder.", show_default=False),
    ] = None,
) -> None:
    """Say which data are there, in which layout, whole or not, and with which hash.

    The exit code is 0 where all can be scored, 1 where something is missing or broken.
    """
    from rich.console import Console

    from .benchmark import load_benchmark
    from .data_check import check_folder, check_one
    from .report.text import print_data
    from .suites import load_suite

    if (benchmark is None) == (suite is None):
        raise typer.BadParameter("name one: --benchmark or --suite")
    if benchmark is not None:
        found = [check_one(load_benchmark(benchmark), path)]
    else:
        names = load_suite(str(suite)).benchmarks
        found = check_folder([load_benchmark(name) for name in names], path)
    print_data(found, Console())
    if any(one.data is None for one in found):
        raise typer.Exit(PROBLEMS_FOUND)


@evaluation.command("list")
def list_benchmarks() -> None:
    """Show all benchmarks with their protocols, and all protocols."""
    from rich.console import Console

    from .report.text import print_benchmarks

    print_benchmarks(Console())
