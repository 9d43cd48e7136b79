"""Curves of logged metrics, as SVG for a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Curve", "Panel", "panels"]

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22

MAX_POINTS = 400
"""Maximum number of points of a curve, so that the page of a long run stays small."""

METRICS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Loss", {"loss": "training", "eval_loss": "held out"}),
    ("Reward margin", {"rewards/margins": "training", "eval_rewards/margins": "held out"}),
    (
        "Share of pairs with a positive margin",
        {"rewards/accuracies": "training", "eval_rewards/accuracies": "held out"},
    ),
    ("Log-prob per token", {"logps/chosen": "chosen", "logps/rejected": "rejected"}),
    ("Mean weight", {"w_qual": "quality", "w_perf": "performance", "weight": "both"}),
    ("Share of pairs with an open NLL gate", {"nll_gate": "gate"}),
    ("Effective sample size", {"effective_sample_size": "pairs"}),
    ("Gradient norm", {"grad_norm": "norm"}),
    ("Learning rate", {"learning_rate": "rate"}),
)
"""Title of a panel -> metric and its name in the legend."""


@dataclass(frozen=True)
class Curve:
    """One metric over training.

    Attributes:
        name: Its name in the legend.
        path: The points in the coordinates of the panel, for `polyline`.
        points: (x, y, text) of each point.
    """

    name: str
    path: str
    points: Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class Panel:
    """A figure with one or more curves.

    Attributes:
        title: Its title.
        curves: Its curves.
        ticks: (y, text) of the horizontal lines.
        steps: (x, text) of the first and the last step.
    """

    title: str
    curves: Sequence[Curve]
    ticks: Sequence[tuple[float, str]]
    steps: Sequence[tuple[float, str]]
    width: int = field(default=WIDTH, init=False)
    height: int = field(default=HEIGHT, init=False)
    left: int = field(default=LEFT, init=False)
    right: int = field(default=WIDTH - RIGHT, init=False)


def panels(logs: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Return a panel for each group of metrics that was logged."""
    made = (_panel(title, metrics, logs) for title, metrics in METRICS)
    return [panel for panel in made if panel is not None]


def _panel(
    title: str, metrics: Mapping[str, str], logs: Sequence[Mapping[str, Any]]
) -> Panel | None:
    series = {
        name: [(log["step"], float(log[metric])) for log in logs if _is_finite(log.get(metric))]
        for metric, name in metrics.items()
    }
    series = {name: _thinned(values) for name, values in series.items() if values}
    if not series:
        return None
    steps = [step for values in series.values() for step, _ in values]
    heights = [value for values in series.values() for _, value in values]
    first, last = min(steps), max(steps)
    ticks = _ticks(min(heights), max(heights))
    low, high = min(ticks[0], *heights), max(ticks[-1], *heights)

    def x(step: float) -> float:
        share = 0.5 if first == last else (step - first) / (last - first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        share = 0.5 if low == high else (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    curves = [
        Curve(
            name,
            " ".join(f"{x(step)},{y(value)}" for step, value in values),
            [(x(step), y(value), f"{name}, step {step}: {value:.4g}") for step, value in values],
        )
        for name, values in series.items()
    ]
    ends = dict.fromkeys((first, last))
    return Panel(
        title,
        curves,
        [(y(tick), f"{tick:g}") for tick in ticks],
        [(x(step), f"step {step:,}") for step in ends],
    )


def _thinned(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the smallest and the largest value of each of equal parts, and both ends."""
    if len(values) <= MAX_POINTS:
        return values
    size = -(-2 * len(values) // MAX_POINTS)
    parts = (values[first : first + size] for first in range(0, len(values), size))
    kept = {values[0], values[-1]}
    for part in parts:
        kept |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(kept)


def _ticks(low: float, high: float) -> list[float]:
    """Return two to six round numbers from `low` to `high`."""
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    span = high - low
    unit = 10.0 ** math.floor(math.log10(span))
    spacing = next(s for s in (unit / 5, unit / 2, unit, 2 * unit) if span / s <= 5)
    start, end = math.floor(low / spacing), math.ceil(high / spacing)
    digits = max(-math.floor(math.log10(spacing)), 0)
    ticks = [round(number * spacing, digits) for number in range(start, end + 1)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else ticks


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
