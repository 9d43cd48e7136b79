"""`unidpo-mm list`: what there is to choose from, one line each."""

from enum import StrEnum
from typing import Annotated

import typer

from ..plugins import LOSS_PACKAGE, families, format_modules, loss_names, summary

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
        typer.echo(f"{name:<{width}}  {summary(module)}")


def _modules(kind: Kind) -> dict[str, str]:
    if kind is Kind.MODELS:
        return families()
    if kind is Kind.LOSSES:
        return {name: f"{LOSS_PACKAGE}.{name}" for name in loss_names()}
    return {name: module.__name__ for name, module in format_modules().items()}
