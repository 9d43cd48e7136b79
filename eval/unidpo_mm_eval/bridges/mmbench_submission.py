"""MMBench's test split: write the table for its server, which must not contain results."""

from collections.abc import Sequence

from unidpo_mm.errors import Problem

from . import Bridge, ExportJob, raise_if
from ._files import write_table

COLUMNS = "index question A B C D prediction split category l2-category".split()
RESULT_COLUMNS = frozenset({"hit", "score", "log", "opt"})
"""Columns of a results table, which might be submitted by mistake."""


def export(job: ExportJob) -> Sequence[str]:
    """Write every row of the split with its prediction."""
    problems = job.missing(allow_empty=False)
    columns = sorted(RESULT_COLUMNS & {name for record in job.records for name in record})
    if columns:
        text = f"the data contain columns of a results table: {', '.join(columns)}"
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
