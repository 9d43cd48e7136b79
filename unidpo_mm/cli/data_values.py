"""Values of the options of `unidpo-mm data`, and its reports as JSON."""

import dataclasses
import math
from typing import Any

import typer

__all__ = ["bounds_of", "columns_of", "plain_report"]


def columns_of(pairs: list[str]) -> dict[str, str]:
    """Return the columns that ``--column prompt=question`` names."""
    found: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not (ours and theirs):
            text = f"'{pair}' is no pair of names: write prompt=question"
        elif ours in found:
            text = f"'{ours}' is named twice, as {found[ours]} and as {theirs}"
        else:
            found[ours] = theirs
            continue
        raise typer.BadParameter(text, param_hint="--column")
    return found


def bounds_of(scale: str | None) -> tuple[float, float] | None:
    """Return the ends of ``--scale 0,10``."""
    if scale is None:
        return None
    try:
        low, high = (float(number) for number in scale.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(high - low)):
        raise typer.BadParameter(f"'{scale}' is no scale: write it as 0,10", param_hint="--scale")
    return low, high


def plain_report(report: Any) -> dict[str, Any]:
    """Return a report as JSON knows it: no images, and nothing that is no number."""
    shown = [dataclasses.replace(one, images=()) for one in report.shown]
    plain: dict[str, Any] = _finite(dataclasses.asdict(dataclasses.replace(report, shown=shown)))
    return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
