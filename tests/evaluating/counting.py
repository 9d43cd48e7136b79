"""Runs `eval` in one of several processes and writes how many prompts it answered."""

import os
import sys
from pathlib import Path
from typing import Any

from unidpo_mm_eval.command import evaluation
from unidpo_mm_eval.run import generate as answering

answered: list[int] = []
real = answering.greedy_answers


def counted(model: Any, adapter: Any, prompts: Any, **more: Any) -> Any:
    answered.append(len(prompts))
    return real(model, adapter, prompts, **more)


answering.greedy_answers = counted
folder, *words = sys.argv[1:]
evaluation(words, standalone_mode=False)
(Path(folder) / f"rank-{os.environ['RANK']}.txt").write_text(str(sum(answered)))
