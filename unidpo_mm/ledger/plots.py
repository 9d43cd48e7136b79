"""Plots of a ledger: weights, contributions and margins over training, and scores against margins.

The last panels are the figure of the paper (arXiv 2506.10054) that motivates two weights: how the
density of score margin against reward margin moves while a model learns.
"""

from pathlib import Path
from typing import Any

import polars as pl

from .tables import Ledger, over_time

__all__ = ["plot_ledger"]

MAX_POINTS = 50_000
"""Maximum number of visits in a density, drawn evenly from all of them."""

PERIODS = 40


def plot_ledger(ledger: Ledger, output: Path) -> None:
    """Plot a ledger into a file, whose suffix states the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    table = over_time(ledger, periods=PERIODS)
    step = table["last_step"].to_list()
    _lines(axes[0, 0], step, table, ["pair_weight", *_weights(ledger)], "Mean weight")
    _lines(axes[0, 1], step, table, ["contribution"], "Mean contribution, |d loss / d margin|")
    shares = ["effective_by_weight", "effective_by_contribution", "accuracy"]
    _lines(axes[0, 2], step, table, shares, "Effective share of pairs; share ranked right")
    axes[0, 2].set_ylim(0, 1.02)
    _lines(axes[1, 0], step, table, ["reward_margin"], "Mean reward margin")
    third = pl.col("step") * 3 / table["last_step"].max()
    for axis, period, title in (
        (axes[1, 1], third <= 1, "First third of training"),
        (axes[1, 2], third > 2, "Last third of training"),
    ):
        _density(axis, ledger.applied.filter(period), title)
    figure.savefig(output, dpi=150)


def _weights(ledger: Ledger) -> list[str]:
    return [name for name in ledger.terms if name.startswith("w_")]


def _lines(axis: Any, step: list[int], table: pl.DataFrame, columns: list[str], title: str) -> None:
    for name in columns:
        axis.plot(step, table[name].to_list(), label=name.replace("_", " "))
    axis.set_title(title, fontsize="medium", loc="left")
    axis.set_xlabel("step")
    axis.spines[["top", "right"]].set_visible(False)
    if len(columns) > 1:
        axis.legend(frameon=False, fontsize="small")


def _density(axis: Any, visits: pl.LazyFrame, title: str) -> None:
    margins = visits.select("score_margin", "reward_margin").drop_nulls().collect()
    every = -(-len(margins) // MAX_POINTS) or 1
    margins = margins.gather_every(every)
    axis.set_title(title, fontsize="medium", loc="left")
    axis.set_xlabel("score margin")
    axis.set_ylabel("reward margin")
    if len(margins):
        x, y = margins["score_margin"].to_numpy(), margins["reward_margin"].to_numpy()
        axis.hexbin(x, y, gridsize=30, mincnt=1, bins="log", cmap="viridis", linewidths=0.1)
        axis.axhline(0, color="gray", linewidth=0.8)
