"""lmms-eval: its logged samples, `*_samples_<task>.jsonl`, and the log that it replays.

`--model from_log --model_args logs=FOLDER` reads every .json of a folder: responses by number of
the document, from 0, in the order of the task's data. It then scores them by its own rules.
"""

import json
import time
from collections.abc import Sequence

from unidpo_mm.errors import DataError, Problem

from . import Asked, Bridge
from ._samples import read_samples

__all__ = ["BRIDGE"]


def export(asked: Asked) -> Sequence[str]:
    """Writes a log to be replayed; every row has to be answered, since it has no other way."""
    problems = []
    if not asked.task:
        text = "lmms-eval looks responses up by task"
        problems.append(Problem("--task", text, "Name it, as in --task pope"))
    missing = [own for own in asked.ids if own not in asked.responses]
    if missing:
        found = f"{len(missing)} rows have no prediction, the first of them '{missing[0]}'"
        problems.append(Problem("--predictions", found, "Answer every row"))
    if problems:
        raise DataError(problems)
    logs = [
        {"doc_id": number, "resps": [[asked.responses[own]]]}
        for number, own in enumerate(asked.ids)
    ]
    content = {
        "args": {"model": asked.model, "model_args": "", "limit": None},
        "model_configs": {"task": asked.task},
        "logs": logs,
        "time": time.strftime("%m%d_%H%M"),
    }
    asked.out.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return [f"responses by number of the row: its data have to be these {len(logs)}, in this order"]


BRIDGE = Bridge(
    name="lmms_eval", title="lmms-eval", endings=(".json",), export=export, read=read_samples
)
