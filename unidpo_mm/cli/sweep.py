"""`unidpo-mm sweep`: arms times seeds of one recipe, as a table."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["sweep"]


def sweep(
    file: Annotated[
        Path,
        typer.Argument(
            help="A sweep, a YAML file, or the name of a shipped one.",
            metavar="SWEEP",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs; runs/sweeps/NAME if left out.", show_default=False),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds in place of the file's, with commas.", show_default=False)
    ] = "",
) -> None:
    """Run the arms of a sweep over seeds; the same command again goes on where it stopped."""
    from ..recipe.shipped import shipped_recipe

    path = file if file.is_file() else shipped_recipe(str(file), kind="sweep")

    from ..sweep.command import run_and_show  # torch, so after the name is known to be good

    run_and_show(path, out or Path("runs/sweeps") / path.stem, seeds)
