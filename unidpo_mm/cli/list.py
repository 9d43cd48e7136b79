"""`unidpo-mm list`: list the model families, losses and data formats."""

from enum import StrEnum
from importlib.metadata import EntryPoint
from typing import Annotated

import typer

from ..plugins import FAMILIES, FORMATS, LOSSES, plugin_names, summary
from .summaries import first_line

__all__ = ["Kind", "show_plugins"]


class Kind(StrEnum):
    """The kinds of plugins that can be listed."""

    MODELS = "models"
    LOSSES = "losses"
    FORMATS = "formats"


KINDS = {Kind.MODELS: FAMILIES, Kind.LOSSES: LOSSES, Kind.FORMATS: FORMATS}


def show_plugins(
    kind: Annotated[
        Kind, typer.Argument(help="Kind of plugins to list.", metavar="KIND", show_default=False)
    ],
) -> None:
    """List the model families, losses or data formats, one per line."""
    modules = plugin_names(KINDS[kind])
    width = max(map(len, modules), default=0)
    for name, module in modules.items():
        # read from the source: importing the losses would import torch
        line = first_line(EntryPoint(name, module, "")) or summary(module)
        typer.echo(f"{name:<{width}}  {line}")
