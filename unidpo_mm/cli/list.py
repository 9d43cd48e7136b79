"""`unidpo-mm list`: what there is to choose from, one line each."""

from enum import StrEnum
from importlib.metadata import EntryPoint
from typing import Annotated

import typer

from ..plugins import families, format_modules, loss_modules, summary
from .extra import first_line

__all__ = ["Kind", "show_plugins"]


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    LOSSES = "losses"
    FORMATS = "formats"


def show_plugins(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
) -> None:
    """List the model families, losses or data formats, one line each."""
    modules = _modules(kind)
    width = max(map(len, modules), default=0)
    for name, module in modules.items():
        # read from the source: importing the losses would import torch
        line = first_line(EntryPoint(name, module, "")) or summary(module)
        typer.echo(f"{name:<{width}}  {line}")


def _modules(kind: Kind) -> dict[str, str]:
    if kind is Kind.MODELS:
        return families()
    if kind is Kind.LOSSES:
        return loss_modules()
    return {name: module.__name__ for name, module in format_modules().items()}
