"""A check as one HTML file that needs nothing else: tables, charts as SVG, small images."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import grouped
from .report import CheckReport, Histogram, Summary

__all__ = ["page"]

TEMPLATE = Path(__file__).with_name("page.html.jinja")
WIDTH, HEIGHT = 320, 120
"""Size of a chart in the units of its SVG."""
PROBLEMS = 500
"""Lines of problems on the page; all problems are in the JSON."""


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
        shown=PROBLEMS,
        image=_inline,
    )


def numbers(found: Summary | None) -> str:
    """Return median, middle nine tenths and extremes."""
    if found is None:
        return "-"
    middle = f"5 to 95 %: {_rounded(found.p5)} to {_rounded(found.p95)}"
    whole = f"{_rounded(found.low)} to {_rounded(found.high)} in all"
    return f"{_rounded(found.median)} ({middle}; {whole})"


def brief(found: Summary) -> str:
    """Return median and extremes."""
    return f"{_rounded(found.median)} ({_rounded(found.low)} to {_rounded(found.high)})"


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def bars(found: Histogram) -> list[dict[str, float | int]]:
    """Return the bars of a histogram: place, size, and what they count."""
    most = max(found.counts, default=0) or 1
    wide = WIDTH / max(len(found.counts), 1)
    return [
        {
            "x": number * wide,
            "y": HEIGHT * (1 - count / most),
            "width": wide * 0.9,
            "height": HEIGHT * count / most,
            "count": count,
            "low": found.edges[number],
            "high": found.edges[number + 1],
        }
        for number, count in enumerate(found.counts)
    ]


def dots(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points inside the frame of a chart, the second value upwards."""
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
