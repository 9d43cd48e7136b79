"""Present the results of a run: a table in the terminal and two charts next to the summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

__all__ = ["GalleryItem", "draw_curves", "draw_responses", "result_table"]

DOMAINS = ("multimodal", "math", "text")
COLORS = {"multimodal": "#3b6fb6", "math": "#c2571a", "text": "#3d8b4f"}
PANELS = {
    "loss": "loss",
    "rewards/margins": "reward margin",
    "w_qual": "quality weight w_qual",
    "w_perf": "performance weight w_perf",
}
"""Logged metric and the title of its chart."""


@dataclass(frozen=True, kw_only=True)
class GalleryItem:
    """An unseen image with the model's captions before and after tuning."""

    image: Path
    truth: str
    before: str
    after: str


def result_table(summary: Mapping[str, Any]) -> Table:
    """Return the metrics of `summary.json` as a table, in percent with standard errors."""
    images, errors = summary["multimodal"], summary["standard_errors"]
    table = Table(
        title="Unseen concepts, generated captions", box=SIMPLE_HEAD, title_justify="left"
    )
    for heading in ("", "untrained", "warm-up", "Uni-DPO", "shuffled"):
        table.add_column(heading, justify="left" if not heading else "right")
    lines = {
        "right kind named first": ("accuracy", ("untrained", "warmup", "tuned", "shuffled")),
        "second kind named, one object": ("hallucination_rate", ("", "warmup", "tuned")),
        "object recall": ("object_recall", ("", "warmup", "tuned")),
        "words per caption": ("caption_words", ("", "warmup", "tuned")),
    }
    for text, (name, stages) in lines.items():
        cells = [_cell(images[name], errors[name], stage, name) for stage in stages]
        table.add_row(text, *cells)
    table.add_row("majority rate", "", "", "", f"{100 * images['majority']:.0f} %")
    return table


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss, margins and weights over the steps, one line per domain.

    Args:
        history: Log history of the trainer.
        path: Path of the PNG file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    logs = [log for log in history if "loss" in log and "step" in log]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 3.4), constrained_layout=True)
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for domain in DOMAINS:
            points = [
                (log["step"], log[f"{domain}/{name}"]) for log in logs if f"{domain}/{name}" in log
            ]
            if points:
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, color=COLORS[domain], alpha=0.25, linewidth=1)
                smooth = running_mean(values)
                axis.plot(steps, smooth, color=COLORS[domain], label=domain, linewidth=2)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("optimizer step")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_responses(items: Sequence[GalleryItem], path: Path, *, columns: int = 4) -> None:
    """Draw unseen images with the captions before and after tuning.

    Args:
        items: The images.
        path: Path of the PNG file.
        columns: Images per row.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    rows = -(-len(items) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 3.3 * rows), constrained_layout=True, squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, item in zip(axes.flat, items, strict=False):
        with Image.open(item.image) as image:
            axis.imshow(image.convert("RGB"))
        wrong = item.after != item.truth
        axis.set_title(
            f"is: {item.truth}\nwarm-up: {item.before}\nUni-DPO: {item.after}",
            fontsize=10,
            loc="left",
            color="#8a1c1c" if wrong else "#1d5c2e",
        )
    figure.suptitle("Unseen concepts; green: exactly right after tuning", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def running_mean(values: Sequence[float], width: int = 5) -> list[float]:
    """Return the centered moving average; windows are shorter at the ends."""
    half = width // 2
    windows = [values[max(n - half, 0) : n + half + 1] for n in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _cell(values: Mapping[str, float], errors: Mapping[str, float], stage: str, name: str) -> str:
    if stage not in values:
        return ""
    if name == "caption_words":
        return f"{values[stage]:.2f} ± {errors[stage]:.2f}"
    return f"{100 * values[stage]:.0f} ± {100 * errors[stage]:.0f} %"
