"""The page of a run, `made.html`: one file that opens without a network and has no script."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..atomic import write_text
from ..errors import counted
from ..report.page import FOLDER as REPORT
from ..secrets import mask_text
from .advice import advised_eta
from .load import Making, scorer_name
from .page_charts import (
    correlations,
    funnel_bars,
    length_charts,
    margin_chart,
    right_chart,
    score_charts,
)
from .page_examples import disagreements, excerpt, random_pairs
from .response_table import ResponseTable
from .run import Made
from .timing import Timing, duration

__all__ = ["made_page", "write_page"]

TEMPLATE = Path(__file__).with_name("page.html.jinja")
MAX_LEAKS = 50
"""Maximum number of leaks on the page; the file `leaks.jsonl` has all."""


def write_page(making: Making, made: Made, table: ResponseTable, record: Mapping[str, Any]) -> None:
    """Write `made.html`; see `made_page`."""
    write_text(made.files.page, made_page(making, made, table, record))


def made_page(making: Making, made: Made, table: ResponseTable, record: Mapping[str, Any]) -> str:
    """Return the page of a run.

    Args:
        making: The recipe.
        made: The run.
        table: The responses and their scores.
        record: The content of `made.json`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(thousands=lambda n: f"{n:,}", excerpt=excerpt)
    margins = [margin for row in made.rows for margin in row.margins()]
    names, rows = correlations(table)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"Preference data: {made.files.directory.resolve().name}",
        style=(REPORT / "style.css").read_text(encoding="utf-8"),
        summary=_summary(making, record),
        tiles=_tiles(made, table, record),
        record=record,
        source=yaml.safe_dump(
            [record["source"]], sort_keys=False, allow_unicode=True, default_flow_style=None
        ),
        funnel=funnel_bars(made.funnel),
        pair_score=making.recipe.pair_score,
        scores=score_charts(making, table),
        names=names,
        correlations=rows,
        lengths=length_charts(table),
        right=right_chart(table),
        margins=margin_chart(margins, advised_eta(margins)),
        leaks=made.prompts.leaks,
        max_leaks=MAX_LEAKS,
        faults=table.faults,
        pairs=random_pairs(made),
        disagreements=disagreements(making, made, table),
        times=_times(made.timing),
        image=_inline,
    )
    return mask_text(page)


def _summary(making: Making, record: Mapping[str, Any]) -> str:
    sample = making.recipe.sample
    if sample.responses == "given":
        how = "Responses of the sources"
    else:
        how = f"{sample.n:,} responses per prompt, sampled with temperature {sample.temperature:g}"
        how += ", in addition to those of the sources" if sample.responses == "both" else ""
    scorers = ", ".join(dict.fromkeys(scorer_name(making, name) for name in making.scorers))
    return f"{how}; scored by {scorers or 'nothing'}. Written {record['created'][:10]}."


def _tiles(made: Made, table: ResponseTable, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers to look at first, with what they are."""
    prompts = len(made.prompts.items)
    with_pairs = len(made.rows)
    pairs = sum(len(row.pairs) for row in made.rows)
    warnings = len(record["warnings"]) + len(record["notes"])
    return [
        (f"{prompts:,}", "prompts"),
        (f"{len(table):,}", "responses"),
        (f"{pairs:,}", "pairs to train on"),
        (f"{with_pairs / max(prompts, 1):.0%}", "of the prompts have a pair"),
        (
            f"{float(table.distinct.sum()) / max(len(table), 1):.0%}",
            "of the responses are distinct",
        ),
        (f"{warnings:,}", "warning" if warnings == 1 else "warnings"),
    ]


def _times(timing: Timing) -> list[tuple[str, str]]:
    """Return stages with their times, and the number of items of those with many."""
    return [
        (
            name,
            f"{duration(stage.loading + stage.seconds)} for {counted(stage.items, 'prompt')}"
            if name in ("prompts", "pair")
            else f"{duration(stage.loading + stage.seconds)} for "
            f"{counted(stage.items, 'response')}",
        )
        for name, stage in timing.stages.items()
    ]


def _inline(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
