"""VLMEvalKit: its table without images and with a column `prediction`, one file per model.

It scores such a file by its own command. If the file is named like one of its data sets but has
other content, it downloads that data set; use another name for a part of one.
"""

from collections.abc import Sequence
from pathlib import Path

from unidpo_mm.errors import Problem

from ..data.samples import Prediction
from . import Bridge, ExportJob, ImportedResponse, raise_if
from ._files import TABLES, read_table, write_table


def export(job: ExportJob) -> Sequence[str]:
    """Write the rows that have a prediction."""
    rows = [
        {name: value for name, value in record.items() if name != "image"}
        | {"prediction": job.responses[row_id]}
        for row_id, record in zip(job.ids, job.records, strict=True)
        if row_id in job.responses
    ]
    if not rows:
        text = "no prediction has an id of the data"
        raise_if([Problem("--predictions", text, "Use the ids of the data")])
    write_table(job.output, rows)
    notes = [f"rows without a prediction, skipped: {len(job.ids) - len(rows)}"]
    empty = sum(not row["prediction"] for row in rows)
    return notes + ([f"empty predictions, which it reads as 'nan': {empty}"] if empty else [])


def read(path: Path) -> Sequence[ImportedResponse]:
    """Read the predictions of a table that it wrote."""
    responses, problems = [], []
    for number, row in enumerate(read_table(path), start=1):
        where = f"{path} row {number}"
        if "index" not in row:
            problems.append(Problem(where, "there is no index", "Use a table of predictions"))
            continue
        sample_id, text = row["index"].removesuffix(".0"), row.get("prediction", "")
        prediction = Prediction(id=sample_id, response=text, where=where)
        question, target = row.get("question", ""), row.get("answer", "")
        responses.append(ImportedResponse(prediction=prediction, question=question, target=target))
    raise_if(problems)
    return responses


BRIDGE = Bridge(name="vlmevalkit", title="VLMEvalKit", endings=TABLES, export=export, read=read)
