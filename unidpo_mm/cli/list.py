"""`unidpo-mm list`: list the model families, losses and data formats."""

from importlib.metadata import EntryPoint
from typing import Annotated, Literal

import typer

from ..plugins import FAMILIES, FORMATS, LOSSES, plugin_names, summary
from .summaries import first_line

__all__ = ["show_plugins"]


KINDS = {"models": FAMILIES, "losses": LOSSES, "formats": FORMATS}


def show_plugins(
    kind: Annotated[
        Literal["models", "losses", "formats"],
        typer.Argument(help="Kind of plugins to list.", metavar="KIND"),
    ],
) -> None:
    """List the model families, losses or data formats, one per line."""
    modules = plugin_names(KINDS[kind])
    width = max(map(len, modules), default=0)
    for name, module in modules.items():
        # read from the source: importing the losses would import torch
        line = first_line(EntryPoint(name, module, "")) or summary(module)
        typer.echo(f"{name:<{width}}  {line}")
