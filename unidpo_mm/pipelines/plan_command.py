"""The output of `unidpo-mm data make --plan`; other modules of the command load models."""

from rich.console import Console
from rich.text import Text

from .load import Making
from .plan import plan_of

__all__ = ["show_plan"]


def show_plan(making: Making, *, price: tuple[float, float] | None, exact: bool) -> None:
    """Print what a recipe will cost, without loading weights.

    Args:
        making: The recipe.
        price: Price of a million tokens that a judge reads and writes; `None` if unknown.
        exact: Whether the lengths of all prompts are measured, instead of those of a sample.
    """
    plan = plan_of(making, price=price, exact=exact)
    console = Console(soft_wrap=True, highlight=False)
    for title, lines in plan.sections.items():
        console.print(Text(title, style="bold"))
        width = max(map(len, lines), default=0) + 2
        for name, value in lines.items():
            console.print(Text(f"  {name.ljust(width)}{value}"))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
