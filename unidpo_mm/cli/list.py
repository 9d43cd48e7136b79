"""`unidpo-mm list`: what there is to choose from, one line each."""

from enum import StrEnum
from importlib.metadata import EntryPoint
from typing import Annotated

import typer

from ..plugins import FAMILIES, FORMATS, LOSSES, plugin_names, summary
from .extra import first_line

__all__ = ["Kind", "show_plugins"]


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    LOSSES = "losses"
    FORMATS = "formats"


KINDS = {Kind.MODELS: FAMILIES, Kind.LOSSES: LOSSES, Kind.FORMATS: FORMATS}


def show_plugins(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
) -> None:
    """List the model families, losses or data formats, one line each."""
    modules = plugin_names(KINDS[kind])
    width = max(map(len, modules), default=0)
    for name, module in modules.items():
        # read from the source: importing the losses would import torch
        line = first_line(EntryPoint(name, module, "")) or summary(module)
        typer.echo(f"{name:<{width}}  {line}")
