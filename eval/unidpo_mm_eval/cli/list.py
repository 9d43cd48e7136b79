"""`unidpo-mm eval list`: benchmarks, protocols, prompt profiles, suites and other tools."""

from typing import Annotated

import typer

__all__ = ["list_benchmarks"]


def list_benchmarks(
    name: Annotated[
        str | None,
        typer.Argument(help="A part of the name or title.", metavar="NAME", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="benchmark, protocol, prompt, suite or tool.", show_default=False),
    ] = None,
) -> None:
    """List benchmarks with their protocols and files, protocols, prompts, suites and tools."""
    from rich.console import Console

    from ..report.listing import listed, print_names

    print_names(listed(name, kind), Console())
