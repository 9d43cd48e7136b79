"""`unidpo-mm train`: train a model from a recipe."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def train(
    recipe: Annotated[
        Path,
        typer.Argument(help="A recipe (YAML), or the name of a shipped recipe.", metavar="RECIPE"),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Keys of the recipe to override, for example train.learning_rate=1e-6.",
            metavar="SECTION.KEY=VALUE",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check recipe, data and model and print the plan only."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Deprecated name of --dry-run.", hidden=True)
    ] = False,
) -> None:
    """Train a model from a recipe; the same command resumes an interrupted run.

    Several processes: torchrun --nproc_per_node N -m unidpo_mm train RECIPE, or accelerate
    launch --config_file configs/accelerate/ddp.yaml -m unidpo_mm train RECIPE
    """
    from .ranks import is_first_process

    if check and is_first_process():
        typer.echo("--check is deprecated, use --dry-run", err=True)

    from ..config import load_recipe
    from ..config.checks.recipe import ALL_CHECKS
    from ..config.shipped import shipped_recipe

    path = recipe if recipe.exists() else shipped_recipe(str(recipe))
    loaded = load_recipe(path, overrides or (), checks=ALL_CHECKS)

    from ..training.output_directory import check_recipe_not_overwritten  # imports torch
    from ..training.run import check_from_recipe, finished_run, train_from_recipe

    if dry_run or check:
        check_from_recipe(loaded)
        return
    check_recipe_not_overwritten(path, loaded)
    if finished := finished_run(loaded):
        if is_first_process():
            typer.echo(finished)
    else:
        train_from_recipe(loaded)
