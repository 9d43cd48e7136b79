"""Run `eval` in one of several processes, and write how many prompts it generated responses to."""

import os
import sys
from pathlib import Path
from typing import Any

from unidpo_mm_eval.command import evaluation
from unidpo_mm_eval.models import local

replies: list[int] = []
real = local.greedy_answers


def counted(model: Any, adapter: Any, prompts: Any, **options: Any) -> Any:
    replies.append(len(prompts))
    return real(model, adapter, prompts, **options)


local.greedy_answers = counted
folder, *words = sys.argv[1:]
evaluation(words, standalone_mode=False)
(Path(folder) / f"rank-{os.environ['RANK']}.txt").write_text(str(sum(replies)))
