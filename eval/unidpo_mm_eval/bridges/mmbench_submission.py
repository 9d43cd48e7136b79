"""MMBench's test split: the table that its server scores. It is no table of scores."""

from collections.abc import Sequence

from unidpo_mm.errors import DataError, Problem

from . import Asked, Bridge
from ._tables import write_table

__all__ = ["BRIDGE"]

COLUMNS = (
    "index",
    "question",
    "A",
    "B",
    "C",
    "D",
    "prediction",
    "split",
    "category",
    "l2-category",
)
SCORES = frozenset({"hit", "score", "log", "opt"})
"""Columns of a table of scores, which is uploaded by mistake."""


def export(asked: Asked) -> Sequence[str]:
    """Writes every row of the split with its prediction.

    Raises:
        DataError: If a row has no prediction, or the data are scores.
    """
    problems = []
    scores = sorted(SCORES & {name for record in asked.records for name in record})
    if scores:
        found = f"it has the columns {', '.join(scores)} of a table of scores"
        problems.append(Problem("--data", found, "Name the data of the test split"))
    missing = [own for own in asked.ids if not asked.responses.get(own, "").strip()]
    if missing:
        found = f"{len(missing)} rows have no prediction, the first of them '{missing[0]}'"
        problems.append(Problem("--predictions", found, "Answer every row, copies included"))
    if problems:
        raise DataError(problems)
    rows = [
        {
            name: asked.responses[own] if name == "prediction" else record.get(name, "")
            for name in COLUMNS
            if name == "prediction" or name in record
        }
        for own, record in zip(asked.ids, asked.records, strict=True)
    ]
    write_table(asked.out, rows)
    return [f"rows for the server: {len(rows)}"]


BRIDGE = Bridge(
    name="mmbench_submission",
    title="MMBench's server",
    endings=(".xlsx",),
    export=export,
)
