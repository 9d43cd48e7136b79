"""Values of the options of `unidpo-mm data`, and its reports as JSON."""

import dataclasses
import math
from typing import Any

import typer

__all__ = ["bounds_of", "columns_of", "plain_report"]


def columns_of(pairs: list[str]) -> dict[str, str]:
    """Return the columns of options such as ``--column prompt=question``, by name."""
    columns: dict[str, str] = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if not (name and column):
            text = f"'{pair}': expected NAME=COLUMN, for example prompt=question"
        elif name in columns:
            text = f"'{name}' is mapped twice, to {columns[name]} and to {column}"
        else:
            columns[name] = column
            continue
        raise typer.BadParameter(text, param_hint="--column")
    return columns


def bounds_of(scale: str | None) -> list[float] | None:
    """Return the bounds of a scale such as ``--scale 0,10``."""
    if scale is None:
        return None
    try:
        low, high = (float(number) for number in scale.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(high - low)):
        raise typer.BadParameter(
            f"'{scale}': expected LOW,HIGH, for example 0,10", param_hint="--scale"
        )
    return [low, high]


def plain_report(report: Any) -> dict[str, Any]:
    """Return a report as values of JSON, without images and with null for non-finite numbers."""
    examples = [dataclasses.replace(example, images=()) for example in report.examples]
    content = dataclasses.asdict(dataclasses.replace(report, examples=examples))
    return {name: _finite(value) for name, value in content.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
