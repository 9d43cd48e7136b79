"""`unidpo-mm migrate`: a configuration of another framework becomes a recipe."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["migrate"]


def migrate(
    file: Annotated[
        Path,
        typer.Argument(
            help="A YAML or JSON file of TRL, LLaMA-Factory or the official code.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the recipe; left out, it is printed.", show_default=False
        ),
    ] = None,
) -> None:
    """Turn another framework's configuration into a recipe, with notes on what differs."""
    from rich.console import Console
    from rich.text import Text

    from ..errors import Problem, RecipeError
    from ..migrate import migrate as migrated

    if out is not None and out.exists():
        remedy = "Name another file, or move this one away"
        raise RecipeError(Problem("--out", f"'{out}' is there already", remedy))
    result = migrated(file)
    if out is None:
        typer.echo(result.recipe, nl=False)
    else:
        _write(out, result.recipe)
    console = Console(stderr=True, soft_wrap=True)
    for note in result.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), str(note)))
    if out is not None:
        console.print(Text(f"Written: {out}; read it, then unidpo-mm train {out} --check"))


def _write(path: Path, text: str) -> None:
    from ..errors import Problem, RecipeError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"'{path}' cannot be written: {error.strerror}"
        raise RecipeError(
            Problem("--out", problem, "Name a file in a folder that is there")
        ) from error
