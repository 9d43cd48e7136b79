"""`unidpo-mm rounds`: rounds of sampling, scoring and training."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["rounds"]


def rounds(
    recipe: Annotated[Path, typer.Argument(help="A recipe of rounds (YAML).", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Keys of the recipe to override, for example rounds=2.",
            metavar="KEY=VALUE",
        ),
    ] = None,
) -> None:
    """Sample from a model, score, train it, and start again with the trained model.

    The same command resumes interrupted rounds; what is finished is not repeated.
    """
    from rich.console import Console
    from rich.table import Table

    from ..pipelines.rounds import load_rounds, run_rounds
    from .ranks import is_first_process

    first = is_first_process()
    finished = run_rounds(
        load_rounds(recipe, overrides or ()),
        lambda line: typer.echo(line, err=True) if first else None,
    )
    if not first:
        return
    names = list(dict.fromkeys(name for current in finished for name in current.numbers))
    table = Table("round", *names)
    for current in finished:
        values = (current.numbers.get(name) for name in names)
        cells = ("" if value is None else f"{value:.4g}" for value in values)
        table.add_row(str(current.number), *cells)
    console = Console()
    console.print(table)
    console.print(f"The model of the last round: {finished[-1].model}", soft_wrap=True)
