"""`unidpo-mm init`: write a first recipe for data and a model."""

from pathlib import Path
from typing import Annotated

import typer

from .outputs import check_writable, write

__all__ = ["init"]


def init(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Files, directories or data sets on a hub, in any format of `data check`.",
            metavar="DATA...",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Model (path or hub name) to tune. [default: a placeholder]")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Directory of the image files.")] = None,
    output: Annotated[Path, typer.Option(help="File for the recipe, which must not exist.")] = Path(
        "recipe.yaml"
    ),
) -> None:
    """Write a commented recipe for your data and model.

    What the data show becomes a value with its reason; what they cannot show, such as the scale of
    the scores, is listed as a note.
    """
    from rich.console import Console
    from rich.text import Text

    from ..config import SourceOptions, load_recipe
    from ..config.checks.recipe import ALL_CHECKS
    from ..config.dump import format_recipe
    from ..errors import RecipeError
    from ..starter import starter_recipe

    check_writable(output, "--output", replace=False)
    sources = [SourceOptions(path=path, images=images) for path in data]
    starter = starter_recipe(sources, model, output.stem)
    head = "A first recipe, by unidpo-mm init. All keys: docs/recipe.md"
    write(output, format_recipe(starter.recipe, starter.comments, head), "--output")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for note in starter.notes:
        console.print(Text.assemble(("note: ", "bold yellow"), note))
    try:
        load_recipe(output, checks=ALL_CHECKS)
    except RecipeError as error:
        for problem in error.problems:
            console.print(Text.assemble(("to do: ", "bold yellow"), str(problem)))
    console.print(Text(f"Written: {output}"))
    for command in (f"data check {output}", f"train {output} --dry-run", f"train {output}"):
        console.print(Text(f"  unidpo-mm {command}"))
