"""`unidpo-mm eval data`: which data of benchmarks are there."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["data"]

PROBLEMS_FOUND = 1
"""Exit code where something is missing or broken."""

data = typer.Typer(help="Look at the data of benchmarks.", no_args_is_help=True)


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
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures that the data name.", show_default=False),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Open every picture.")] = True,
) -> None:
    """Say which data are there, in which layout, whole or not, and with which hash.

    The exit code is 0 where all can be scored, 1 where something is missing or broken.
    """
    from rich.console import Console

    from ..benchmarks import load_benchmark
    from ..report.listing import print_data
    from ..run.data_check import check_folder, check_one
    from ..suites import load_suite

    if (benchmark is None) == (suite is None):
        raise typer.BadParameter("name one: --benchmark or --suite")
    if benchmark is not None:
        found = [check_one(load_benchmark(benchmark), path, images=images, opened=pictures)]
    else:
        names = load_suite(str(suite)).benchmarks
        known = [load_benchmark(name) for name in names]
        found = check_folder(known, path, images=images, opened=pictures)
    print_data(found, Console())
    if any(one.problems for one in found):
        raise typer.Exit(PROBLEMS_FOUND)
