"""Arena-Hard: a model's answers, one object per line, as its command for judgments reads them."""

import hashlib
import json
import time
from collections.abc import Sequence

from . import Bridge, ExportJob, raise_if


def export(job: ExportJob) -> Sequence[str]:
    """Write an answer per question."""
    raise_if(job.missing())
    now = time.time()
    lines = []
    for row_id in job.ids:
        content = job.responses[row_id]
        answer_id = hashlib.sha256(f"{job.model}\n{row_id}\n{content}".encode()).hexdigest()[:22]
        turn = {"content": content, "token_len": len(content.split())}
        line = {
            "question_id": row_id,
            "answer_id": answer_id,
            "model_id": job.model,
            "choices": [{"index": 0, "turns": [turn]}],
            "tstamp": now,
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    job.output.write_text("".join(lines), encoding="utf-8")
    return ["token_len counts words, because predictions do not contain the number of tokens"]


BRIDGE = Bridge(
    name="arena_hard", title="Arena-Hard", endings=(".jsonl",), export=export, answers_only=True
)
