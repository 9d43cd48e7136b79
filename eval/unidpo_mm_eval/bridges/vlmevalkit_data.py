"""VLMEvalKit's data: a table under a name of one's own, for its own runs on the same rows.

Under the name of one of its own data sets it compares the file's hash and downloads the original
where it differs. With columns A and B a table becomes a data set of options, which it scores;
others of an unknown name it answers and does not score.
"""

from collections.abc import Sequence

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import benchmark_names, load_benchmark
from . import Asked, Bridge
from ._tables import write_table

__all__ = ["BRIDGE"]

NEEDED = ("index", "image", "question", "answer")


def export(asked: Asked) -> Sequence[str]:
    """Writes the rows with their pictures; where predictions are given, those that have one.

    Raises:
        DataError: If the file is called as one of its own, or a column is not there.
    """
    own = {f for name in benchmark_names() for f in load_benchmark(name).files if "*" not in f}
    columns = {name for record in asked.records for name in record}
    problems = []
    if asked.out.name in own:
        text = f"'{asked.out.name}' is a name of its own, which it would download"
        problems.append(Problem("--out", text, "Name it differently"))
    absent = [name for name in NEEDED if name not in columns and f"{name}_path" not in columns]
    if absent:
        text = f"there is no column {', '.join(absent)}"
        problems.append(Problem("--data", text, "Give a table of VLMEvalKit's layout"))
    if problems:
        raise DataError(problems)
    rows = [
        record
        for name, record in zip(asked.ids, asked.records, strict=True)
        if not asked.responses or name in asked.responses
    ]
    write_table(asked.out, rows)
    options = {"A", "B"} <= columns
    scored = "as questions with options, which it scores" if options else "and does not score them"
    return [f"rows: {len(rows)}; it answers them as '{asked.out.stem}' {scored}"]


BRIDGE = Bridge(
    name="vlmevalkit_data",
    title="VLMEvalKit's data",
    endings=(".tsv",),
    export=export,
    of_data=True,
)
