"""`unidpo-mm list`: list the model families with their model types, losses and data formats."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..plugins import FAMILIES, FORMATS, LOSSES, SCORERS, plugin_names, summary
from .outputs import check_writable, write
from .summaries import first_line

__all__ = ["show_plugins"]


KINDS = {"models": FAMILIES, "losses": LOSSES, "formats": FORMATS, "scorers": SCORERS}


def show_plugins(
    kind: Annotated[
        Literal["models", "losses", "formats", "scorers"],
        typer.Argument(help="Kind of plugins to list.", metavar="KIND"),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the model types as JSON.")
    ] = None,
) -> None:
    """List the model types with their families, losses, data formats or scorers, one per line.

    For models, the table has the layouts of rows (`model.layout`), the number of images of a row,
    whether rows can have videos, and the unit of `model.image_max_size`.
    """
    if json_file is not None and kind != "models":
        raise typer.BadParameter("only models are listed as JSON. Remove it", param_hint="--json")
    check_writable(json_file, "--json")
    _print_plugins(kind)
    if kind == "models":
        from .model_table import model_table, model_types, models_json  # imports torch

        types = model_types()
        typer.echo("\n".join(["", *model_table(types)]))
        if json_file is not None:
            write(json_file, models_json(types), "--json")


def _print_plugins(kind: str) -> None:
    """Print each plugin of a kind with the first line of its docstring."""
    modules = plugin_names(KINDS[kind])
    width = max(map(len, modules), default=0)
    for name, module in modules.items():
        # read from the source: importing the losses would import torch
        line = first_line(EntryPoint(name, module, "")) or summary(module)
        typer.echo(f"{name:<{width}}  {line}")
