"""Two processes give the losses and weights of one, also with pictures on one process only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unidpo_mm.plugins import load_family

WORKER = Path(__file__).parent / "worker.py"


def run(folder: Path, mode: str, processes: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """Runs the worker and returns its record and its final weights."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(
        [*launcher, str(WORKER), str(folder), mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    record = json.loads((folder / f"{mode}.json").read_text())
    return record, torch.load(folder / f"{mode}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    load_family("llava").tiny(folder / "model")
    return folder


@pytest.fixture(scope="module")
def one_process(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    return run(folder, "single", 1)


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_two_processes_equal_one(folder, one_process, mode):
    expected, weights = one_process
    record, other = run(folder, mode, 2)
    for ours, theirs in zip(expected["logs"], record["logs"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
    # plain SGD: equal weights after three steps are equal gradients in each of them
    assert largest_difference(weights, other) < 1e-6
    timings = ("runtime", "per_second")
    for name, value in expected["metrics"].items():
        if not name.endswith(timings):
            assert record["metrics"][name] == pytest.approx(value, abs=1e-5), name


def test_fsdp2_run_is_truly_sharded(folder, one_process):
    record = json.loads((folder / "fsdp2.json").read_text())
    assert record["sharded"] == len(one_process[1])


def test_a_mean_over_own_units_would_be_noticed(folder, one_process):
    _, weights = one_process
    _, wrong = run(folder, "local_mean", 2)
    assert largest_difference(weights, wrong) > 1e-5
