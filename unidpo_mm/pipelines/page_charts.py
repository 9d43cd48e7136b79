"""The charts of the page of a run, as numbers for its template."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from ..check.numbers import histogram
from ..check.page import HEIGHT, WIDTH, bars, dots
from ..check.report import Histogram
from .advice import ETA, quality_weight
from .funnel import ENTERED, LEFT, WITH_PAIRS, Funnel
from .load import Making, scorer_name
from .response_table import Numbers, ResponseTable
from .run_warnings import MAX_CORRELATION, correlation, right_shares

__all__ = [
    "Chart",
    "FunnelBar",
    "correlations",
    "funnel_bars",
    "length_charts",
    "margin_chart",
    "right_chart",
    "score_charts",
]

MAX_DOTS = 400
"""Maximum number of responses in a chart, so that the page stays small."""
CURVE_POINTS = 60
MIN_RADIUS, MORE_RADIUS = 2.0, 4.0
"""Radius of a dot for one response, and what the dot for the largest number has in addition."""
SUBJECTS = {
    "prompts": "Prompts",
    "responses": "Responses",
    "outcomes": "What became of each prompt",
    "pairs": "Pairs",
    "given pairs": "Pairs of the sources, compared with the scores",
}
"""Subject of the funnel -> heading, in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart.

    Attributes:
        title: Its title.
        note: What to read from it.
        left, right: Labels of the ends of the horizontal axis.
        across, up: What the axes are.
        bars: x, y, width, height, low, high and count of each bar.
        dots: x, y, radius and number of responses of each point.
        curves: Points of each curve as text for `polyline`, with its name.
        alarming: Whether the note is a warning.
    """

    title: str
    note: str = ""
    left: str = ""
    right: str = ""
    across: str = ""
    up: str = "responses"
    bars: Sequence[Mapping[str, float]] = ()
    dots: Sequence[tuple[float, float, float, int]] = ()
    curves: Sequence[tuple[str, str]] = ()
    alarming: bool = False


@dataclass(frozen=True)
class FunnelBar:
    """A count of the funnel.

    Attributes:
        name: What was counted.
        number: The count.
        share: Share of the largest count of the subject.
        kind: ``first``, ``lost`` or ``last``.
    """

    name: str
    number: int
    share: float
    kind: str


def funnel_bars(funnel: Funnel) -> list[tuple[str, list[FunnelBar]]]:
    """Return heading and bars of each subject that was counted."""
    listed = []
    for subject, heading in SUBJECTS.items():
        counts = funnel.counts.get(subject)
        if not counts:
            continue
        total = ENTERED.get(subject)
        largest = max(max(counts.values()) if total is None else counts.get(total, 0), 1)
        bars_ = [
            FunnelBar(name, number, number / largest, _kind(subject, name))
            for name, number in counts.items()
        ]
        listed.append((heading, sorted(bars_, key=lambda bar: KINDS.index(bar.kind))))
    return listed


KINDS = ("first", "lost", "last")


def _kind(subject: str, name: str) -> str:
    if name == ENTERED.get(subject):
        return "first"
    return "last" if name in (LEFT.get(subject), WITH_PAIRS) else "lost"


# ---- scores ----


def score_charts(making: Making, table: ResponseTable) -> list[Chart]:
    """Return a histogram for each score, over its scale if it has one."""
    charts = []
    for name, column in table.scores.items():
        scores = column[~numpy.isnan(column)]
        kind = scorer_name(making, name)
        title = name if kind == name else f"{name} ({kind})"
        if not scores.size:
            charts.append(Chart(title=title, note="No response has this score."))
            continue
        scale = making.scorers[name].scale
        low, high = scale if scale is not None else (float(scores.min()), float(scores.max()))
        missing = len(column) - scores.size
        note = f"Median {numpy.median(scores):.3g}, mean {scores.mean():.3g}"
        note += f", {missing:,} without a score." if missing else "."
        limits = "" if scale is not None else "The score has no limits. "
        charts.append(_histogram(scores, title=title, note=limits + note, low=low, high=high))
    return charts


def length_charts(table: ResponseTable) -> list[Chart]:
    """Return score against length for each score, with the rank correlation."""
    charts = []
    for name, scores in table.scores.items():
        places = numpy.flatnonzero(~numpy.isnan(scores)).tolist()
        value = correlation(scores, table.lengths)
        if not places or value is None:
            continue
        sample = random.Random(0).sample(places, min(MAX_DOTS, len(places)))
        points = Counter((float(table.lengths[n]), float(scores[n])) for n in sample)
        lengths, values = table.lengths[sample], scores[sample]
        alarming = abs(value) > MAX_CORRELATION
        note = f"Rank correlation {value:+.2f}"
        note += f", above {MAX_CORRELATION:g} in absolute value." if alarming else "."
        charts.append(
            Chart(
                title=name,
                note=note,
                dots=_sized_dots(points),
                left=f"{lengths.min():g}",
                right=f"{lengths.max():g}",
                across=f"length in {table.unit}",
                up=f"score, upwards from {values.min():.3g} to {values.max():.3g},",
                alarming=alarming,
            )
        )
    return charts


def _sized_dots(
    points: Mapping[tuple[float, float], int],
) -> list[tuple[float, float, float, int]]:
    """Return positions and radii of points, whose areas grow with their numbers."""
    places, largest = dots([*points]), max(points.values())
    return [
        (x, y, MIN_RADIUS + MORE_RADIUS * math.sqrt((number - 1) / max(largest - 1, 1)), number)
        for (x, y), number in zip(places, points.values(), strict=True)
    ]


def right_chart(table: ResponseTable) -> Chart | None:
    """Return the shares of right answers by prompt; `None` if they are unknown."""
    if table.right is None:
        return None
    shares = right_shares(table)
    if not shares.size:
        return None
    all_right, all_wrong = (shares == 1).mean(), (shares == 0).mean()
    return _histogram(
        shares,
        title="Right responses by prompt",
        note=f"{all_right:.0%} of the prompts have right responses only, {all_wrong:.0%} wrong "
        "ones only. The prompts between them teach the most.",
        low=0.0,
        high=1.0,
        across="share of right responses",
        up="prompts",
    )


def correlations(table: ResponseTable) -> tuple[list[str], list[list[float | None]]]:
    """Return the names of the scores and the table of their rank correlations."""
    names = list(table.scores)
    return names, [
        [correlation(table.scores[first], table.scores[second]) for second in names]
        for first in names
    ]


# ---- margins ----


def margin_chart(margins: Sequence[float], advised: float | None) -> Chart | None:
    """Return the margins of the pairs with the curve of their weight; `None` without margins.

    Args:
        margins: Difference of the two scores of each pair.
        advised: The slope that the advice names; `None` if it names none.
    """
    if not margins:
        return None
    values = numpy.array(margins)
    low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-9)
    slopes = [("usual slope", ETA), *([("advised slope", advised)] if advised else [])]
    return _histogram(
        values,
        title="Margins of the pairs",
        note="The bars count pairs; the curves are w_qual, from 0 at the bottom to 1 at the top.",
        low=low,
        high=high,
        across="margin",
        up="pairs",
        curves=[
            (_curve(slope, low, high), f"w_qual, {text} (eta {slope:.2g})")
            for text, slope in slopes
        ],
    )


def _curve(slope: float, low: float, high: float) -> str:
    points = []
    for n in range(CURVE_POINTS + 1):
        share = n / CURVE_POINTS
        weight = quality_weight(low + share * (high - low), slope)
        points.append(f"{WIDTH * share:.1f},{HEIGHT * (1 - weight):.1f}")
    return " ".join(points)


def _histogram(
    values: Numbers,
    *,
    title: str,
    note: str,
    low: float,
    high: float,
    across: str = "score",
    up: str = "responses",
    curves: Sequence[tuple[str, str]] = (),
) -> Chart:
    import torch

    counts: Histogram = histogram(torch.from_numpy(values), low, high)
    return Chart(
        title=title,
        note=note,
        left=_label(counts.edges[0]),
        right=_label(counts.edges[-1]),
        across=across,
        up=up,
        bars=bars(counts),
        curves=curves,
    )


def _label(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and value == int(value) else f"{value:.3g}"
