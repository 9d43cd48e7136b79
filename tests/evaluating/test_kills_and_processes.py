"""Runs in subprocesses: two processes write the file of a single one; kills change nothing."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.small_benchmarks import option_table, run_arguments, varied_checkpoint
from unidpo_mm_eval.results.result import read_result

SHARED = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TRAIN_ONE_STEP = Path(__file__).parent / "train_one_step.py"
COUNT_PROMPTS = Path(__file__).parent / "count_prompts.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")


def command(
    checkpoint: Path, data: Path, out: Path, *launcher: str, size: int = 2
) -> Sequence[str]:
    requests = run_arguments(checkpoint, data, out, "ai2d", "--batch-size", size)
    return [sys.executable, *launcher, "-m", "unidpo_mm", "eval", *requests]


def finish(line: Sequence[str], out: Path) -> bytes:
    done = subprocess.run(
        line, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return (out / "llava" / "ai2d.jsonl").read_bytes()


def test_two_processes_share_the_work_and_write_the_file_of_a_single_process(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = option_table(tmp_path)
    single = finish(command(checkpoint, data, tmp_path / "one"), tmp_path / "one")
    shared = run_arguments(checkpoint, data, tmp_path / "two", "ai2d", "--batch-size", 2)
    two = finish(
        [sys.executable, *SHARED, str(COUNT_PROMPTS), str(tmp_path), *shared], tmp_path / "two"
    )
    assert two == single
    counts = [int(path.read_text()) for path in sorted(tmp_path.glob("rank-*.txt"))]
    assert counts == [6, 5]  # prompts that each process answered


def test_two_processes_evaluate_during_training_like_a_single_process(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, actual = option_table(tmp_path), []
    for name, launcher in (("one", ()), ("two", SHARED)):
        line = [sys.executable, *launcher, str(TRAIN_ONE_STEP), str(tmp_path / name), str(data)]
        done = subprocess.run(
            [*line, str(checkpoint)], env=ENVIRONMENT, capture_output=True, text=True, timeout=280,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        actual.append(read_result(tmp_path / name / "benchmarks" / "step-0" / "ai2d.json"))
    item, two = ([sample.response for sample in result.per_sample] for result in actual)
    assert item == two
    assert actual[1].metrics["missing"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """A run that is killed at any time, also during start-up, ends with the same file."""
    data = option_table(tmp_path, rows=240)
    out = tmp_path / "whole"
    began = time.perf_counter()
    full = finish(command(checkpoint, data, out, size=1), out)
    seconds = time.perf_counter() - began
    rng, out, grown = random.Random(4), tmp_path / "killed", []
    line = command(checkpoint, data, out, size=1)
    for _ in range(20):
        process = subprocess.Popen(line, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 0.75) * seconds)
        process.kill()
        process.wait()
        grown.append(sum(file.stat().st_size for file in out.rglob("*.jsonl")))
    assert len(set(grown)) > 3  # kills did hit it at work
    assert finish(line, out) == full
