"""Train a step in one of several processes, with an evaluation before it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import mixed_rows
from trainers import config, make_trainer
from unidpo_mm_eval.run.callback import BenchmarkCallback

out, data, checkpoint = map(Path, sys.argv[1:])
callback = BenchmarkCallback(
    data=data, benchmarks=("ai2d",), every=9, clusters=100, max_new_tokens=4, batch_size=2
)
rows, args = mixed_rows(images=True), config(out, max_steps=1)
make_trainer(checkpoint, rows, args, callbacks=[callback]).train()
