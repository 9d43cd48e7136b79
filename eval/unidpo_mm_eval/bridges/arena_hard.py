"""Arena-Hard: a model's answers, one object a line, as its command for judgments reads them."""

import hashlib
import json
import time
from collections.abc import Sequence

from unidpo_mm.errors import DataError, Problem

from . import Asked, Bridge

__all__ = ["BRIDGE"]


def export(asked: Asked) -> Sequence[str]:
    """Writes one answer for each question; all of them have to be answered."""
    missing = [own for own in asked.ids if own not in asked.responses]
    if missing:
        found = f"{len(missing)} questions have no prediction, the first of them '{missing[0]}'"
        raise DataError(Problem("--predictions", found, "Answer every question"))
    now = time.time()
    lines = []
    for own in asked.ids:
        content = asked.responses[own]
        answer = hashlib.sha256(f"{asked.model}\n{own}\n{content}".encode()).hexdigest()[:22]
        turn = {"content": content, "token_len": len(content.split())}
        choices = [{"index": 0, "turns": [turn]}]
        lines.append(
            {"question_id": own, "answer_id": answer, "model_id": asked.model, "choices": choices}
            | {"tstamp": now}
        )
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    asked.out.write_text(text, encoding="utf-8")
    return ["token_len counts words: the file of predictions does not say tokens"]


BRIDGE = Bridge(
    name="arena_hard",
    title="Arena-Hard",
    endings=(".jsonl",),
    export=export,
    answers_only=True,
)
