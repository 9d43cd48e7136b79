"""VLMEvalKit's data: a table under a new name, for its own runs on the same rows.

Under the name of one of its data sets it compares the file's hash and downloads the original if it
differs. A table with columns A and B becomes a data set with options, which it scores; for others
with an unknown name it generates responses but does not score them.
"""

from collections.abc import Sequence

from unidpo_mm.errors import Problem

from ..benchmarks import benchmark_names, load_benchmark
from . import Bridge, ExportJob, raise_if
from ._files import write_table

REQUIRED = ("index", "image", "question", "answer")


def export(job: ExportJob) -> Sequence[str]:
    """Write the rows with their images; with predictions, only rows that have one."""
    reserved = {f for name in benchmark_names() for f in load_benchmark(name).files if "*" not in f}
    columns = {name for record in job.records for name in record}
    problems = []
    if job.output.name in reserved:
        text = f"VLMEvalKit would download its own '{job.output.name}'"
        problems.append(Problem("--output", text, "Use another name"))
    absent = [name for name in REQUIRED if name not in columns and f"{name}_path" not in columns]
    if absent:
        text = f"missing column {', '.join(absent)}"
        problems.append(Problem("--data", text, "Use a table in VLMEvalKit's format"))
    raise_if(problems)
    pairs = zip(job.ids, job.records, strict=True)
    rows = [record for i, record in pairs if not job.responses or i in job.responses]
    write_table(job.output, rows)
    is_scored = {"A", "B"} <= columns
    effect = (
        "as questions with options, which it scores" if is_scored else "but does not score them"
    )
    return [f"rows: {len(rows)}; it evaluates them as '{job.output.stem}' {effect}"]


BRIDGE = Bridge(
    name="vlmevalkit_data",
    title="VLMEvalKit's data",
    endings=(".tsv",),
    export=export,
    of_data=True,
)
