"""Render the report of a run: one HTML file that works from the file system."""

import html
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..ledger.alarms import Alarm
from ..secrets import mask_text
from .curves import panels
from .record import RunRecord
from .sections import Section, held_out_table, run_sections, short_name, versions

__all__ = ["report_page"]

FOLDER = Path(__file__).parent

Tile = tuple[str, str]
"""A number and what it is."""


def report_page(
    record: RunRecord, alarms: Sequence[Alarm], *, ended: bool, has_ledger: bool = True
) -> str:
    """Return the report of a run as HTML.

    Args:
        record: The record of the run up to now.
        alarms: What the ledger has shown.
        ended: Whether training has ended.
        has_ledger: Whether the run has a ledger.
    """
    from jinja2 import Environment, StrictUndefined

    sections = run_sections(record)
    if (held_out := held_out_table(record)) is not None:
        sections.append(Section("Held-out rows", held_out))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _with_code
    page = environment.from_string(_read("page.html.jinja")).render(
        title=record.directory.name or str(record.directory),
        directory=shlex.quote(str(record.directory)),
        has_ledger=has_ledger,
        status=_status(record, ended=ended),
        alarms=alarms,
        tiles=_tiles(record),
        panels=panels(record.logs),
        sections=sections,
        versions=", ".join(f"{name} {number}" for name, number in versions(record).items()),
        style=_read("style.css"),
    )
    return mask_text(page)


def _status(record: RunRecord, *, ended: bool) -> str:
    step, of = record.state.get("global_step", 0), record.state.get("max_steps", 0)
    start = f" from {short_name(record.start)}" if record.start else ""
    if not ended:
        return f"Training{start}: step {step:,} of {of:,} when this report was written."
    return f"Trained{start}: {step:,} of {of:,} steps."


def _tiles(record: RunRecord) -> list[Tile]:
    """Return the figures to look at first."""
    logs = record.logs
    tiles = [
        *_change(logs, "eval_rewards/accuracies", "held-out pairs ranked right", percent=True),
        *_change(logs, "eval_loss", "held-out loss"),
        *_change(logs, "loss", "training loss"),
        *_change(logs, "effective_sample_size", "effective pairs per batch"),
    ]
    seconds = [log["train_runtime"] for log in logs if "train_runtime" in log]
    if seconds:
        tiles.append((_duration(seconds[-1]), "training time since the last start"))
    return tiles


def _change(logs: Sequence[Any], metric: str, meaning: str, *, percent: bool = False) -> list[Tile]:
    """Return the first and the last value of a metric; nothing if it was not logged."""
    values = [log[metric] for log in logs if metric in log]
    if not values:
        return []
    texts = [f"{value:.1%}" if percent else f"{value:.3g}" for value in (values[0], values[-1])]
    return [(" \N{RIGHTWARDS ARROW} ".join(dict.fromkeys(texts)), meaning)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _with_code(text: str) -> Any:
    """Return HTML for text with Markdown's `code`."""
    from markupsafe import Markup

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text)))


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
