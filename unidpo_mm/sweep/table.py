"""The result of a sweep as a table: mean and standard error over seeds."""

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .run import Results
from .runner import Figure

__all__ = ["as_markdown", "as_table"]


def as_table(results: Results, figures: Mapping[str, Figure], *, title: str) -> Table:
    """Return a table with one row per arm and one column per figure, for a terminal."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    shown = _shown(results, figures)
    for name in shown:
        table.add_column(figures[name].title, justify="right")
    for arm, values in results.items():
        table.add_row(Text(arm), *(cell(values.get(name, ()), figures[name]) for name in shown))
    return table


def as_markdown(results: Results, figures: Mapping[str, Figure]) -> str:
    """Return the same table as Markdown."""
    shown = _shown(results, figures)
    lines = [
        f"| {' | '.join(['', *(figures[name].title for name in shown)])} |",
        f"| --- |{' ---: |' * len(shown)}",
    ]
    for arm, values in results.items():
        cells = [cell(values.get(name, ()), figures[name]) for name in shown]
        lines.append(f"| {' | '.join([arm, *cells])} |")
    return "\n".join(lines) + "\n"


def cell(values: Sequence[float], figure: Figure) -> str:
    """Return ``mean ± standard error``; the mean alone where there is one seed."""
    if not values:
        return ""
    scale, digits = (100, 0) if figure.percent else (1, 2)
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{scale * mean:.{digits}f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    error = math.sqrt(variance / len(values))
    return f"{scale * mean:.{digits}f} ± {scale * error:.{digits}f}"


def _shown(results: Results, figures: Mapping[str, Figure]) -> list[str]:
    """Return the figures that any arm has."""
    return [name for name in figures if any(name in values for values in results.values())]
