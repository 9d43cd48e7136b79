"""A small run of the real command line, with text, math and image rows."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from unidpo_mm.ledger.tables import read_ledger

__all__ = [
    "RECIPE",
    "largest_difference",
    "launch",
    "ledger_lines",
    "sabotage",
    "weights",
    "write_run",
]

SABOTAGE = Path(__file__).parent / "sabotage"

RECIPE = """
model: {{name_or_path: {model}, dtype: float32, freeze: []}}
data:
  sources: [{{path: pairs.jsonl}}]
  eval_sources: [{{path: held_out.jsonl}}]
loss: {{name: uni_dpo, tau_good: median}}
train:
  output_dir: out
  max_steps: 4
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  learning_rate: 1.0e-2
  optim: {optim}
  lr_scheduler_type: linear
  max_grad_norm: 0.0
  eval_strategy: steps
  eval_steps: 2
  eval_generations: 1
  eval_max_new_tokens: 4
  save_steps: 1
  save_total_limit: 2
  logging_steps: 1
  report_to: none
  use_cpu: true
  disable_tqdm: true
"""


def write_run(folder: Path, model: Path, *, optim: str = "sgd", rows: int = 16) -> Path:
    """Write the data and the recipe of a run into a directory, and return the recipe.

    Only a few rows have images, so that some micro-batches have none.
    """
    for number, color in enumerate([(200, 30, 30), (30, 30, 200)]):
        Image.new("RGB", (40 - number, 30), color).save(folder / f"{number}.png")
    (folder / "pairs.jsonl").write_text(_lines(range(rows)), encoding="utf-8")
    (folder / "held_out.jsonl").write_text(_lines(range(100, 105)), encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(model=model, optim=optim), encoding="utf-8")
    return path


def ledger_lines(output_dir: Path) -> list[tuple[Any, ...]]:
    """Return the lines of a run's ledger in the order of its steps."""
    visits = read_ledger(output_dir).visits.drop("pair_weight")
    return visits.sort("step", "rank", "position").collect().rows()


def launch(
    recipe: Path, *overrides: str, processes: int = 1, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `unidpo-mm train` in a new process group; several processes are started by torchrun."""
    command = [sys.executable, "-m", "unidpo_mm", "train"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        command = [sys.executable, *launcher, str(processes), "-m", "unidpo_mm", "train"]
    return subprocess.Popen(
        [*command, recipe.name, *overrides],
        cwd=recipe.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def sabotage(match: str, kill_at: int = 0, *, rank: int = 0, log: Path | None = None) -> dict:
    """Return the environment of a run whose process kills itself; see `sabotage/sitecustomize.py`.

    Args:
        match: Part of the paths whose accesses are counted.
        kill_at: Number of the access at which the process is killed; 0 for never.
        rank: Rank of the process.
        log: A file to record the accesses in.
    """
    paths = [str(SABOTAGE), os.environ.get("PYTHONPATH", "")]
    env = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "SABOTAGE_MATCH": match,
        "SABOTAGE_KILL_AT": str(kill_at),
        "SABOTAGE_RANK": str(rank),
    }
    return env if log is None else {**env, "SABOTAGE_LOG": str(log)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a saved model."""
    return load_file(folder / "model.safetensors")


def largest_difference(
    left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]
) -> float:
    """Return the largest difference between two models with the same weights."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def _lines(numbers: Sequence[int]) -> str:
    return "\n".join(json.dumps(_row(number)) for number in numbers)


def _row(number: int) -> dict:
    texts = ["A red square" + " and a circle" * (number % 3), "Blue" + " dog" * (number % 4)]
    if number % 4 == 0:
        texts.append(
            "Nothing at all"
        )  # three pairs, so that processes have unequal numbers of them
    row: dict = {
        "prompt": f"What is {number} in it?",
        "responses": [{"text": text, "score": 4.0 - 1.1 * n} for n, text in enumerate(texts)],
    }
    if number % 6 == 0:
        row |= {"prompt": f"<image>What is {number}?", "images": [f"{number % 2}.png"]}
    elif number % 2:
        row["domain"] = "math"
    return row
