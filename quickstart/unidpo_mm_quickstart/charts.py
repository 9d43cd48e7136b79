"""Charts of a run as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from .training_rows import DOMAINS

__all__ = ["training_charts", "weight_charts"]

COLORS = {"multimodal": "#3b6fb6", "math": "#c2571a", "text": "#3d8b4f"}
TRAINING = {
    "loss": "loss",
    "rewards/accuracies": "better response preferred (reward accuracy)",
    "rewards/margins": "reward margin",
}
WEIGHTS = {"w_qual": "quality weight w_qual", "w_perf": "performance weight w_perf"}
"""Logged metric and the title of its chart."""
SMOOTHED = 5
"""Number of logs of the moving average."""


def training_charts(history: Sequence[Mapping[str, float]]) -> str:
    """Draw loss, accuracy and margin over the steps, a line per domain, as an SVG element."""
    return _charts(history, TRAINING)


def weight_charts(history: Sequence[Mapping[str, float]]) -> str:
    """Draw both weights over the steps, a line per domain, as an SVG element."""
    return _charts(history, WEIGHTS)


def moving_average(values: Sequence[float], width: int = SMOOTHED) -> list[float]:
    """Return the centered moving average; windows are shorter at the ends."""
    half = width // 2
    windows = [values[max(n - half, 0) : n + half + 1] for n in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _charts(history: Sequence[Mapping[str, float]], panels: Mapping[str, str]) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    logs = [log for log in history if "loss" in log and "step" in log]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.0), constrained_layout=True
    )
    for axis, (metric, title) in zip(axes, panels.items(), strict=True):
        for domain in DOMAINS:
            _draw(axis, logs, f"{domain}/{metric}", domain)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("optimizer step", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=9)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _draw(axis: Any, logs: Sequence[Mapping[str, float]], name: str, domain: str) -> None:
    points = [(log["step"], log[name]) for log in logs if name in log]
    if points:
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color=COLORS[domain], alpha=0.25, linewidth=1)
        axis.plot(steps, moving_average(values), color=COLORS[domain], label=domain, linewidth=2)
