"""AlpacaEval: a list of instructions with outputs, which its command compares by a judge."""

import json
from collections.abc import Sequence

from unidpo_mm.errors import Problem

from . import Bridge, ExportJob, raise_if


def export(job: ExportJob) -> Sequence[str]:
    """Write an object per instruction."""
    problems = job.missing()
    for row_id, record in zip(job.ids, job.records, strict=True):
        if "instruction" not in record:
            text = "there is no instruction"
            problems.append(Problem(f"row '{row_id}'", text, "Use its data, alpaca_eval.json"))
    raise_if(problems)
    rows = []
    for row_id, record in zip(job.ids, job.records, strict=True):
        row = {name: record[name] for name in ("dataset", "instruction") if name in record}
        rows.append(row | {"output": job.responses[row_id], "generator": job.model})
    job.output.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return []


BRIDGE = Bridge(
    name="alpaca_eval", title="AlpacaEval", endings=(".json",), export=export, answers_only=True
)
