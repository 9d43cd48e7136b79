"""`unidpo-mm migrate`: convert the configuration of another framework to a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from .outputs import check_writable, write

__all__ = ["migrate"]


def migrate(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML or JSON configuration of TRL, LLaMA-Factory or the official code.",
            metavar="CONFIG",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File for the recipe, which must not exist. [default: the recipe is printed]"
        ),
    ] = None,
) -> None:
    """Convert the configuration of another framework to a recipe.

    Notes on keys that are not migrated or differ in meaning go to standard error.
    """
    from rich.console import Console
    from rich.text import Text

    from ..migrate import migrate as migrate_file

    check_writable(output, "--output", replace=False)
    result = migrate_file(config)
    console = Console(stderr=True, soft_wrap=True)
    if output is None:
        typer.echo(result.recipe, nl=False)
    else:
        write(output, result.recipe, "--output")
    for note in result.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), str(note)))
    if output is not None:
        console.print(Text(f"Written: {output}. Check it with: unidpo-mm train {output} --dry-run"))
