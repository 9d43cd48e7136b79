"""The plots of the page that explains the method, as SVG.

Text and axes use `currentColor`, so that inline plots have the colors of the page, light or dark.
"""

import io
import re
from collections.abc import Callable
from functools import cache

import matplotlib as mpl
import numpy as np
from curves import nll_gate, pair_loss, performance_weight, quality_weight
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["PLOTS", "svg_of"]

COLORS = ("#00897b", "#e07b00", "#7e57c2", "#c2185b")
"""Colors of the curves, readable on white and on dark gray."""

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "unidpo-mm",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLORS),
    "lines.linewidth": 2,
    "legend.frameon": False,
}


def _quality(axes: Axes) -> None:
    margins = np.linspace(-3, 8, 200)
    for eta in (0.2, 0.7, 2.0):
        axes.plot(margins, quality_weight(margins, eta=eta), label=f"eta = {eta}")
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="score of chosen - score of rejected", ylabel="w_qual", ylim=(0, 1.02))


def _performance_gamma(axes: Axes) -> None:
    margins = np.linspace(-4, 6, 200)
    for gamma in (0.0, 1.0, 3.0, 5.0):
        weights = performance_weight(margins, gamma=gamma, tau_ref=2.0)
        axes.plot(margins, weights, label=f"gamma = {gamma:g}")
    axes.set(xlabel="policy margin (tau_ref = 2)", ylabel="w_perf", ylim=(0, 1.05))


def _performance_tau(axes: Axes) -> None:
    margins = np.linspace(-4, 6, 200)
    for tau_ref in (0.5, 1.0, 2.0):
        weights = performance_weight(margins, gamma=3.0, tau_ref=tau_ref)
        axes.plot(margins, weights, label=f"tau_ref = {tau_ref:g}")
    axes.set(xlabel="policy margin (gamma = 3)", ylabel="w_perf", ylim=(0, 1.05))


def _loss(axes: Axes) -> None:
    margins = np.linspace(-3, 5, 200)
    dpo = pair_loss(margins, margins, w_qual=1.0, gamma=0.0, tau_ref=2.0)
    axes.plot(margins, dpo, label="DPO on the same margin")
    for score_margin in (3.0, 0.0):
        w_qual = float(quality_weight(np.array(score_margin), eta=0.7))
        loss = pair_loss(margins, margins, w_qual=w_qual, gamma=3.0, tau_ref=2.0)
        axes.plot(margins, loss, label=f"Uni-DPO, score margin {score_margin:g}")
    axes.set(xlabel="reward margin = policy margin", ylabel="loss per pair")


def _gate(axes: Axes) -> None:
    changes = np.linspace(-1, 1, 400)
    for score in (4.0, 2.0):
        gate = nll_gate(changes, score, tau_good=3.2)
        axes.plot(changes, gate, label=f"chosen score {score:g} (tau_good = 3.2)")
    axes.set(xlabel="log-prob per token: policy - reference", ylabel="gate", ylim=(-0.04, 1.3))


PLOTS: dict[str, Callable[[Axes], None]] = {
    "quality_weight": _quality,
    "performance_weight_gamma": _performance_gamma,
    "performance_weight_tau_ref": _performance_tau,
    "pair_loss": _loss,
    "nll_gate": _gate,
}
"""Name -> function that draws the plot."""


@cache
def svg_of(name: str) -> str:
    """Return a plot as an SVG element."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        PLOTS[name](axes)
        axes.legend()
        output = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(output, format="svg", transparent=True, metadata=metadata)
    svg = output.getvalue()
    return _in_page_colors(svg[svg.index("<svg ") :], name)


def _in_page_colors(svg: str, name: str) -> str:
    """Replace black with the text color, and the font with that of the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("#000000", "currentColor")
    svg = re.sub(r"fill: currentColor; ?", "", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    svg = svg.replace("<text ", '<text fill="currentColor" ')
    # a page may contain several plots, so ids must differ
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r"(url\(#|xlink:href=\"#)", rf"\g<1>{name}-", svg)
