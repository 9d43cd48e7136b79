"""Runs in subprocesses: two processes write the file of a single one; kills change nothing."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import mixed_rows
from support.forked_runs import run_ranks, unidpo_mm
from support.small_benchmarks import option_table, run_arguments, varied_checkpoint
from trainers import config, make_trainer
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.run.callback import BenchmarkCallback

from unidpo_mm.inference import local_model

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")


def run(function: Callable[[], object], processes: int) -> None:
    ends = run_ranks(function, processes=processes)
    outputs = "\n".join(end.output[-3000:] for end in ends)
    assert [end.code for end in ends] == [0] * processes, outputs


def evaluate(
    checkpoint: Path, data: Path, out: Path, counts: Path, processes: int
) -> tuple[bytes, list[int]]:
    """Run `unidpo-mm eval`; return the predictions and the number of prompts of each process."""
    arguments = run_arguments(checkpoint, data, out, "ai2d", "--batch-size", 2)
    counts.mkdir()

    def count_prompts() -> None:
        sizes: list[int] = []
        generate_responses = local_model.generate_responses

        def counted(model: Any, adapter: Any, prompts: Any, *options: Any, **place: Any) -> Any:
            sizes.append(len(prompts))
            return generate_responses(model, adapter, prompts, *options, **place)

        local_model.generate_responses = counted
        try:
            unidpo_mm("eval", *arguments)()
        finally:
            (counts / os.environ.get("RANK", "0")).write_text(str(sum(sizes)))

    run(count_prompts, processes)
    predictions = (out / "llava" / "ai2d.jsonl").read_bytes()
    return predictions, [int(path.read_text()) for path in sorted(counts.iterdir())]


def test_two_processes_share_the_work_and_write_the_file_of_a_single_process(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = option_table(tmp_path)
    single, count = evaluate(checkpoint, data, tmp_path / "one", tmp_path / "count", 1)
    two, counts = evaluate(checkpoint, data, tmp_path / "two", tmp_path / "counts", 2)
    assert two == single
    assert count == [11]
    assert counts == [6, 5]  # prompts that each process answered


def test_two_processes_evaluate_during_training_like_a_single_process(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = option_table(tmp_path)

    def train(out: Path) -> None:
        callback = BenchmarkCallback(
            data=data, benchmarks=("ai2d",), every=9, clusters=100, max_new_tokens=4, batch_size=2
        )
        rows, args = mixed_rows(images=True), config(out, max_steps=1)
        make_trainer(checkpoint, rows, args, callbacks=[callback]).train()

    results = []
    for name, processes in (("one", 1), ("two", 2)):
        run(lambda out=tmp_path / name: train(out), processes)
        results.append(read_result(tmp_path / name / "benchmarks" / "step-0" / "ai2d.json"))
    single, double = ([sample.response for sample in result.per_sample] for result in results)
    assert single == double
    assert results[1].metrics["missing"] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torchrun_shares_the_work_too(checkpoint: Path, tmp_path: Path) -> None:
    data = option_table(tmp_path)
    expected = finish(command(checkpoint, data, tmp_path / "one"), tmp_path / "one")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    actual = finish(command(checkpoint, data, tmp_path / "two", *launcher), tmp_path / "two")
    assert actual == expected


def command(
    checkpoint: Path, data: Path, out: Path, *launcher: str, size: int = 2
) -> Sequence[str]:
    arguments = run_arguments(checkpoint, data, out, "ai2d", "--batch-size", size)
    return [sys.executable, *launcher, "-m", "unidpo_mm", "eval", *arguments]


def finish(line: Sequence[str], out: Path) -> bytes:
    done = subprocess.run(
        line, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return (out / "llava" / "ai2d.jsonl").read_bytes()


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
