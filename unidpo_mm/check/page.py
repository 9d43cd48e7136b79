"""Render a data check as a self-contained HTML page with tables, SVG charts and thumbnails."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import grouped
from .report import CheckReport, Histogram, Summary

__all__ = ["page"]

TEMPLATE = Path(__file__).with_name("page.html.jinja")
WIDTH, HEIGHT = 320, 120
"""Size of a chart in SVG units."""
MAX_PROBLEMS = 500
"""Lines of problems on the page; the JSON contains all problems."""


def page(report: CheckReport, *, title: str) -> str:
    """Return the page of a check."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        bars=bars,
        brief=brief,
        dots=dots,
        numbers=numbers,
        percent=percent,
        thousands=lambda n: f"{n:,}",
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        title=title,
        problems=[line for line, _ in grouped(report.problems)],
        max_problems=MAX_PROBLEMS,
        image=_inline,
    )


def numbers(summary: Summary | None) -> str:
    """Return median, the range of the middle 90 % and extremes."""
    if summary is None:
        return "-"
    middle = f"5 to 95 %: {_rounded(summary.p5)} to {_rounded(summary.p95)}"
    extremes = f"{_rounded(summary.low)} to {_rounded(summary.high)} overall"
    return f"{_rounded(summary.median)} ({middle}; {extremes})"


def brief(summary: Summary) -> str:
    """Return median and extremes."""
    return f"{_rounded(summary.median)} ({_rounded(summary.low)} to {_rounded(summary.high)})"


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def bars(histogram: Histogram) -> list[dict[str, float | int]]:
    """Return the bars of a histogram: position, size, count and range."""
    maximum = max(histogram.counts, default=0) or 1
    width = WIDTH / max(len(histogram.counts), 1)
    return [
        {
            "x": number * width,
            "y": HEIGHT * (1 - count / maximum),
            "width": width * 0.9,
            "height": HEIGHT * count / maximum,
            "count": count,
            "low": histogram.edges[number],
            "high": histogram.edges[number + 1],
        }
        for number, count in enumerate(histogram.counts)
    ]


def dots(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points scaled to the frame of a chart, with the second value upwards."""
    if not points:
        return []
    xs, ys = zip(*points, strict=True)
    return [(_place(x, xs, WIDTH), HEIGHT - _place(y, ys, HEIGHT)) for x, y in points]


def _place(value: float, values: Sequence[float], size: float) -> float:
    low, high = min(values), max(values)
    return size * (0.5 if high == low else 0.03 + 0.94 * (value - low) / (high - low))


def _rounded(value: float) -> str:
    if math.isfinite(value) and value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}"


def _inline(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
