"""Render the ledger of a run as a self-contained page that works from the file system."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import counted
from ..ledger.alarms import find_alarms, read_visits
from ..ledger.tables import RANKINGS, Ledger, over_time, read_ledger, top_pairs
from .excerpts import pair_excerpts

__all__ = ["LensOptions", "lens_page"]

FOLDER = Path(__file__).parent
DIGITS = 4
"""Significant digits of the numbers on the page."""
PERIODS = 60
"""Number of points of the curves."""
FACTS = ("weight", "contribution", "reward_margin", "loss")


@dataclass(frozen=True)
class LensOptions:
    """Limits of the page.

    Attributes:
        max_pairs: Maximum number of pairs on the page.
        max_excerpts: Maximum number of pairs with texts and images.
        ranked: Number of pairs of each ranking that are on the page in any case.
    """

    max_pairs: int = 20_000
    max_excerpts: int = 400
    ranked: int = 50


DEFAULTS = LensOptions()


def lens_page(run: Path, options: LensOptions = DEFAULTS) -> str:
    """Return the page of a run.

    Args:
        run: The output directory, or the ledger in it.
        options: Limits of the page.

    Raises:
        DataError: If the run has no ledger, or it cannot be read.
    """
    from jinja2 import Environment, StrictUndefined

    ledger = read_ledger(run)
    ranked = {name: _ids(top_pairs(ledger, name, limit=options.ranked)) for name in RANKINGS}
    all_ids = ledger.visits.select(pl.col("pair_id").unique()).collect().to_series().sort()
    first = list(dict.fromkeys(name for names in ranked.values() for name in names))
    page_ids = _sample(all_ids.to_list(), first, options.max_pairs)
    excerpt_ids = _sample(page_ids, first, options.max_excerpts)
    excerpts, reason = pair_excerpts(ledger.folder.parent, set(excerpt_ids))
    if ledger.unit == "response":
        excerpts, reason = {}, "Texts are shown for pairs only, not for single responses"
    content = {
        "title": str(ledger.folder.parent),
        "loss": {key: value for key, value in ledger.loss.items() if key != "by_source"},
        "unit": ledger.unit,
        "terms": ledger.terms,
        "alarms": [vars(alarm) for alarm in find_alarms(read_visits(ledger.folder))],
        "rules": _rules(len(all_ids), len(page_ids), len(excerpts), reason, ledger.unit),
        "rankings": [
            {"name": name, "text": text, "ids": ranked[name]} for name, text in RANKINGS.items()
        ],
        "curves": _columns(over_time(ledger, periods=PERIODS)),
        "pairs": _pairs(ledger, page_ids),
        "excerpts": excerpts,
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("page.html.jinja")).render(
        title=content["title"],
        style=_read("style.css"),
        script=_read("page.js"),
        content=_json(content),
    )


def _sample(names: Sequence[str], first: Sequence[str], limit: int) -> list[str]:
    """Return at most `limit` names: the first ones, and evenly spaced ones of the others."""
    kept = dict.fromkeys(first[:limit])
    others = [name for name in names if name not in kept]
    room = limit - len(kept)
    if room > 0 and others:
        step = max(len(others) / room, 1.0)
        count = min(room, len(others))
        kept |= dict.fromkeys(others[math.floor(step * number)] for number in range(count))
    return sorted(kept)


def _rules(total: int, pairs: int, excerpts: int, reason: str, unit: str) -> list[str]:
    """Return which pairs are on the page, as sentences."""
    rules = [f"All {counted(total, unit)} of the run are shown."]
    if pairs < total:
        rules = [
            f"{pairs:,} of {counted(total, unit)} are shown: the first of each list, and others "
            "at equal distances in the order of their ids."
        ]
    if excerpts < pairs:
        rules.append(f"Texts and images of {excerpts:,} of them are on the page.")
    return [*rules, f"{reason.removesuffix('.')}."] if reason else rules


def _pairs(ledger: Ledger, names: Sequence[str]) -> dict[str, Any]:
    """Return the pairs on the page as columns, and their visits one after the other."""
    numbers = [*FACTS, "pair_weight", *ledger.terms]
    visits = (
        ledger.visits.filter(pl.col("pair_id").is_in(list(names)))
        .sort("pair_id", "step", "rank", "position")
        .collect()
    )
    facts = visits.group_by("pair_id", maintain_order=True).agg(
        pl.col("source", "domain", "score_chosen", "score_rejected", "score_margin").last(),
        pl.col("chosen_length", "rejected_length").last(),
        pl.len().alias("visits"),
    )
    return {
        **_columns(facts),
        "steps": visits["step"].to_list(),
        "values": _columns(visits.select(list(dict.fromkeys(numbers)))),
    }


def _columns(table: pl.DataFrame) -> dict[str, list[Any]]:
    return table.to_dict(as_series=False)


def _ids(table: pl.DataFrame) -> list[str]:
    names: list[str] = table["pair_id"].to_list()
    return names


def _json(content: Any) -> str:
    """Return JSON for a script element: it contains no tag, and no NaN."""
    text = json.dumps(_rounded(content), ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
