"""`unidpo-mm sweep`: compare variants of a recipe over several seeds."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["sweep"]


def sweep(
    file: Annotated[
        Path,
        typer.Argument(
            help="A sweep file (YAML), or the name of a shipped sweep.", metavar="SWEEP"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Directory of the runs and the table. [default: runs/sweeps/NAME]"),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds, separated by commas. [default: the file's]")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the sweep and list its runs only.")
    ] = False,
) -> None:
    """Train the arms of a sweep with several seeds and compare them in a table.

    The same command resumes an interrupted sweep; finished runs are not repeated.
    """
    from ..config.shipped import shipped_recipe

    path = file if file.is_file() else shipped_recipe(str(file), kind="sweep")

    from ..sweep.command import run_and_show  # imports torch, so only for an existing file

    run_and_show(path, output or Path("runs/sweeps") / path.stem, seeds, dry_run=dry_run)
