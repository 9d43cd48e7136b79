"""`unidpo-mm list`: list the model families with their model types, losses and data formats."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..plugins import FAMILIES, FORMATS, LOSSES, SCORERS, load, plugin_names, summary
from .outputs import check_writable, write
from .summaries import first_line, first_line_of_file

__all__ = ["show_plugins"]


KINDS = {"models": FAMILIES, "losses": LOSSES, "formats": FORMATS, "scorers": SCORERS}


def show_plugins(
    kind: Annotated[
        Literal["models", "losses", "formats", "scorers"],
        typer.Argument(help="Kind of plugins to list.", metavar="KIND"),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Python files with plugins of your own, which are loaded and listed after the "
            "others.",
            metavar="FILE",
        ),
    ] = None,
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
    _print_plugins(kind, files or [])
    if kind == "models":
        from .model_table import model_table, model_types, models_json  # imports torch

        types = model_types()
        typer.echo("\n".join(["", *model_table(types)]))
        if json_file is not None:
            write(json_file, models_json(types), "--json")


def _print_plugins(kind: str, files: Sequence[Path]) -> None:
    """Print each plugin of a kind with the first line of its docstring."""
    # read from the source: importing the losses would import torch
    lines = {
        name: first_line(EntryPoint(name, module, "")) or summary(module)
        for name, module in plugin_names(KINDS[kind]).items()
    }
    for file in files:
        plugin = load(KINDS[kind], str(file), "FILE")  # refuses a file without such a plugin
        name = plugin.__name__ if isinstance(plugin, type) else ""
        lines[str(file)] = first_line_of_file(file, name)
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        typer.echo(f"{name:<{width}}  {line}")
