"""The screen at the end of the quick-start: what was wrong, what changed, four numbers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from unidpo_mm_eval.report.tables import comparison_json
from unidpo_mm_eval.results.comparison import Comparison
from unidpo_mm_eval.stats.intervals import Interval

__all__ = ["PROBLEM", "REMEDY", "Number", "Summary", "next_steps", "print_summary"]

PROBLEM = (
    "The model first learned from noisy captions: for images with one object, most captions name "
    "a second, absent object. So the model invents objects."
)
REMEDY = (
    "One Uni-DPO run on preference pairs of images, sums and words: the better caption names what "
    "is there. No better caption is shorter or longer than the worse one more often than not."
)
CONTROL_MEANING = (
    "The tuned model's captions, graded on the image of another sample. If the model did not look "
    "at the images, they would be as good there."
)

CAPTIONS, PAIRS = "captions", "pairs"
NUMBERS = (
    (CAPTIONS, "hallucination_rate", "invents a second object", "% of images with one object"),
    (CAPTIONS, "exact", "caption exactly right", "% of images"),
    (CAPTIONS, "accuracy", "first object right", "% of images"),
    (PAIRS, "accuracy", "prefers the better response", "% of pairs of images, math and text"),
)
"""Comparison, metric, title and unit of each number on the screen."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A metric before and after tuning, as text in percent with 95 % intervals.

    Attributes:
        title: What it measures.
        unit: Percent of what.
        before, after: The values.
        difference: The value after tuning minus that before.
        control: The value on the images of other samples; empty for pairs.
    """

    title: str
    unit: str
    before: str
    after: str
    difference: str
    control: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The results of a run.

    Attributes:
        captions: Comparison on unseen images: before, after and the control.
        pairs: Comparison on held-out pairs: before and after.
        commands: Commands that evaluate the models in the same way.
        page: The HTML page.
        tuned: Directory of the tuned model.
    """

    captions: Comparison
    pairs: Comparison
    commands: Sequence[str]
    page: Path
    tuned: Path

    def content(self) -> dict[str, Any]:
        """Return every number of both comparisons, unrounded."""
        return {
            CAPTIONS: json.loads(comparison_json(self.captions)),
            PAIRS: json.loads(comparison_json(self.pairs)),
        }

    def numbers(self) -> Iterator[Number]:
        """Yield the numbers of the screen."""
        for name, metric, title, unit in NUMBERS:
            comparison: Comparison = getattr(self, name)
            values = [
                f"{measured.result.metrics[metric]:.0f} {_range(measured.intervals[metric])}"
                for measured in comparison.results
            ]
            contrast = comparison.contrasts[0]
            change = f"{contrast.differences[metric]:+.0f}"
            yield Number(
                title=title,
                unit=unit,
                before=values[0],
                after=values[1],
                difference=f"{change} {_range(contrast.intervals[metric], sign='+')}",
                control=values[2] if len(values) > 2 else "",
            )


def next_steps(summary: Summary) -> list[tuple[str, str]]:
    """Return the commands that a user can run next, with what they do."""
    return [
        (f"unidpo-mm chat {summary.tuned} --image PHOTO.png", "ask the tuned model"),
        ("unidpo-mm init PAIRS.jsonl --model MODEL", "write a recipe for your own data"),
        ("unidpo-mm train recipe.yaml", "train with it, or resume"),
    ]


def print_summary(summary: Summary, console: Console, *, seconds: float) -> None:
    """Print one screen: what was wrong, what tuning did, four numbers, the control, what next."""
    console.print(f"\n[bold]What was wrong[/bold]  {PROBLEM}")
    console.print(f"[bold]What tuning did[/bold]  {REMEDY}\n")
    table = Table(
        box=SIMPLE_HEAD, title="On objects that no training image showed, with 95 % intervals"
    )
    headings = ("%", "before", "after", "difference", "other images *")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "%" else "right")
    for number in summary.numbers():
        cells = (number.before, number.after, number.difference, number.control)
        table.add_row(number.title, *cells)
    console.print(table)
    console.print(f"* {CONTROL_MEANING}\n", style="dim")
    minutes = f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    console.print(f"Done in {minutes}. [bold]Look at it:[/bold] {summary.page}\n", soft_wrap=True)
    for command, meaning in next_steps(summary):
        console.print(f"  {command}  [dim]# {meaning}[/dim]", soft_wrap=True, highlight=False)


def _range(interval: Interval, *, sign: str = "") -> str:
    return f"[{interval.low:{sign}.0f}, {interval.high:{sign}.0f}]"
