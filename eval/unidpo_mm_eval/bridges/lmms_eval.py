"""lmms-eval: its logged samples, `*_samples_<task>.jsonl`, and a log that it can replay.

`--model from_log --model_args logs=FOLDER` reads every .json file of a directory: responses by
document number, from 0, in the order of the task's data. It scores them by its own rules.
"""

import json
import time
from collections.abc import Sequence

from unidpo_mm.errors import Problem

from . import Bridge, ExportJob, raise_if
from ._samples import read_samples


def export(job: ExportJob) -> Sequence[str]:
    """Write a log that can be replayed; every row needs a response."""
    problems = job.missing()
    if not job.task:
        text = "lmms-eval looks responses up by task"
        problems.append(Problem("--task", text, "Use its name, for example --task pope"))
    raise_if(problems)
    content = {
        "args": {"model": job.model, "model_args": "", "limit": None},
        "model_configs": {"task": job.task},
        "logs": [{"doc_id": n, "resps": [[job.responses[i]]]} for n, i in enumerate(job.ids)],
        "time": time.strftime("%m%d_%H%M"),
    }
    job.output.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return [f"responses by row number: its data have to be these {len(job.ids)} rows in this order"]


BRIDGE = Bridge(
    name="lmms_eval", title="lmms-eval", endings=(".json",), export=export, read=read_samples
)
