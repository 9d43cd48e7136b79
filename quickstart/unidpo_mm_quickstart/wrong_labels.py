"""Weights and contributions of pairs with wrong labels, from the ledger of a run of the study."""

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from unidpo_mm.ledger.tables import read_ledger
from unidpo_mm.sweep.runner import Metric

__all__ = ["METRICS", "figures_of", "wrong_rows"]

METRICS: Mapping[str, Metric] = {
    "wrong/contribution": Metric(
        title="share of wrong labels in |d loss / d margin| %", percent=True
    ),
    "wrong/w_perf": Metric(title="w_perf of wrong minus right labels"),
    "wrong/w_qual": Metric(title="w_qual of wrong minus right labels"),
}


def wrong_rows(pairs: Path, right: Path) -> set[str]:
    """Return the ids of rows whose responses are swapped.

    Args:
        pairs: The file of training pairs.
        right: The file with the same rows and right labels.
    """
    chosen = {row["id"]: row["chosen"] for row in _rows(right)}
    return {row["id"] for row in _rows(pairs) if chosen.get(row["id"]) == row["rejected"]}


def figures_of(run: Path, wrong: set[str]) -> dict[str, float]:
    """Return the `METRICS` of a run: means over all visits, and a share of their sum.

    Args:
        run: Its output directory.
        wrong: Ids of the rows with wrong labels; without any, there are no figures.
    """
    if not wrong:
        return {}
    ledger = read_ledger(run)
    is_wrong = pl.col("row_id").is_in(sorted(wrong))
    contribution = pl.col("contribution") * pl.col("weight")
    figures = {"wrong/contribution": contribution.filter(is_wrong).sum() / contribution.sum()}
    for name in ("w_perf", "w_qual"):
        if name in ledger.terms:
            term = pl.col(name)
            figures[f"wrong/{name}"] = term.filter(is_wrong).mean() - term.filter(~is_wrong).mean()
    return ledger.applied.select(**figures).collect().row(0, named=True)


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
