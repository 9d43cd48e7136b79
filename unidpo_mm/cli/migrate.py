"""`unidpo-mm migrate`: convert the configuration of another framework to a recipe."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["migrate"]


def migrate(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML or JSON configuration of TRL, LLaMA-Factory or the official code.",
            metavar="CONFIG",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File for the recipe, which must not exist. [default: the recipe is printed]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Convert the configuration of another framework to a recipe.

    Notes on keys that are not migrated or differ in meaning go to standard error.
    """
    from rich.console import Console
    from rich.text import Text

    from ..errors import Problem, RecipeError
    from ..migrate import migrate as migrate_file

    if output is not None and output.exists():
        remedy = "Choose another file or delete it"
        raise RecipeError(Problem("--output", f"'{output}' already exists", remedy))
    result = migrate_file(config)
    console = Console(stderr=True, soft_wrap=True)
    if output is None:
        typer.echo(result.recipe, nl=False)
    else:
        try:
            output.write_text(result.recipe, encoding="utf-8")
        except OSError as error:
            problem = f"cannot write '{output}': {error.strerror}"
            remedy = "Choose a file in an existing directory"
            raise RecipeError(Problem("--output", problem, remedy)) from error
    for note in result.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), str(note)))
    if output is not None:
        console.print(Text(f"Written: {output}. Check it with: unidpo-mm train {output} --dry-run"))
