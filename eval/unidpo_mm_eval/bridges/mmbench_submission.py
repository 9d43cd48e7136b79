"""MMBench's test split: the table for its server, which must not contain scores."""

from collections.abc import Sequence

from unidpo_mm.errors import Problem

from . import Bridge, ExportJob, raise_if
from ._files import write_table

COLUMNS = "index question A B C D prediction split category l2-category".split()
SCORES = frozenset({"hit", "score", "log", "opt"})
"""Columns of a table of scores, which is sometimes uploaded by mistake."""


def export(job: ExportJob) -> Sequence[str]:
    """Write every row of the split with its prediction."""
    problems = job.missing(allow_empty=False)
    scores = sorted(SCORES & {name for record in job.records for name in record})
    if scores:
        text = f"the columns {', '.join(scores)} are those of a table of scores"
        problems.append(Problem("--data", text, "Use the data of the test split"))
    raise_if(problems)
    rows = []
    for row_id, record in zip(job.ids, job.records, strict=True):
        row = {**record, "prediction": job.responses[row_id]}
        rows.append({name: row[name] for name in COLUMNS if name in row})
    write_table(job.output, rows)
    return [f"rows for the server: {len(rows)}"]


BRIDGE = Bridge(
    name="mmbench_submission", title="MMBench's server", endings=(".xlsx",), export=export
)
