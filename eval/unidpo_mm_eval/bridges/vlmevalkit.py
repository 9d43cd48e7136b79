"""VLMEvalKit: its table without pictures and with a column `prediction`, one file a model.

It scores such a file by its own command. A file called as one of its own data sets makes it
download that data set where the content is another; call a part of one differently.
"""

from collections.abc import Sequence
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from ..data.samples import Prediction
from . import Asked, Bridge, Imported
from ._tables import TABLES, read_table, write_table

__all__ = ["BRIDGE"]


def export(asked: Asked) -> Sequence[str]:
    """Writes the rows that have a prediction."""
    rows, empty = [], 0
    for own, record in zip(asked.ids, asked.records, strict=True):
        if own not in asked.responses:
            continue
        response = asked.responses[own]
        empty += not response
        rows.append({n: v for n, v in record.items() if n != "image"} | {"prediction": response})
    if not rows:
        found = "no prediction has an id of the data"
        raise DataError(Problem("--predictions", found, "Write the ids of the data"))
    write_table(asked.out, rows)
    told = [f"rows without a prediction, left out: {len(asked.ids) - len(rows)}"]
    return told + ([f"empty predictions, which it reads as 'nan': {empty}"] if empty else [])


def read(path: Path) -> Sequence[Imported]:
    """Returns the predictions of a table that it wrote."""
    found, problems = [], []
    for number, row in enumerate(read_table(path), start=1):
        where = f"{path} row {number}"
        if "index" not in row:
            problems.append(Problem(where, "there is no index", "Give a table of predictions"))
            continue
        own = row["index"]
        said = row.get("prediction", "")
        one = Prediction(id=own.removesuffix(".0"), response=said, where=where)
        question, target = row.get("question", ""), row.get("answer", "")
        found.append(Imported(prediction=one, question=question, target=target))
    if problems:
        raise DataError(problems)
    return found


BRIDGE = Bridge(name="vlmevalkit", title="VLMEvalKit", endings=TABLES, export=export, read=read)
