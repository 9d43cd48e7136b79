"""Four processes, nodes without a shared disk, shipped accelerate configurations, FSDP2: all save
and resume. Each of them starts several interpreters, so they are slow.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import largest_difference, launch, sabotage, weights, write_run

from unidpo_mm.config import load_recipe
from unidpo_mm.training.run import train_from_recipe

Checkpoint = Callable[[str], Path]
ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(command: list[str], folder: Path, env: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, *, code: int | None = 0) -> str:
    output = process.communicate(timeout=500)[0]
    assert code is None or process.returncode == code, output[-4000:]
    return output


@pytest.fixture
def expected(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """Return the initial model and the output directory of a run in a single process."""
    model, folder = checkpoint("llava"), tmp_path / "single"
    folder.mkdir()
    recipe = write_run(folder, model)
    monkeypatch.chdir(folder)
    train_from_recipe(load_recipe(recipe, ["train.gradient_accumulation_steps=4"]))
    return model, folder / "out"


def test_four_processes_that_are_killed_and_resume_equal_a_single_one(
    expected: tuple[Path, Path], tmp_path: Path
) -> None:
    model, single = expected
    folder = tmp_path / "four"
    folder.mkdir()
    recipe = write_run(folder, model)
    words = ["train.gradient_accumulation_steps=1"]
    kill = sabotage(".saving/checkpoint-2", 1, rank=3)
    assert "SIGKILL" in finish(launch(recipe, *words, processes=4, env=kill), code=None)
    assert not (folder / "out" / "checkpoint-2").exists()
    output = finish(launch(recipe, *words, processes=4))
    assert "resuming at step 1 of 4" in output
    assert largest_difference(weights(folder / "out"), weights(single)) < 1e-5
    assert (folder / "out" / "checkpoint-4" / "rng_state_3.pth").is_file()
    assert "holds the finished run" in finish(launch(recipe, *words, processes=4))


def test_nodes_without_a_shared_disk_save_separate_checkpoints(
    expected: tuple[Path, Path], tmp_path: Path
) -> None:
    model, single = expected
    nodes = [tmp_path / "first", tmp_path / "second"]
    for node in nodes:
        node.mkdir()
        write_run(node, model)

    def run(env: dict[str, str] | None = None) -> list[subprocess.Popen]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return [
            start(
                [
                    "torch.distributed.run",
                    *("--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"),
                    *("--master_addr", "127.0.0.1", "--master_port", str(port)),
                    *("-m", "unidpo_mm", "train", "recipe.yaml"),
                    "train.gradient_accumulation_steps=2",
                ],
                node,
                env,
            )
            for rank, node in enumerate(nodes)
        ]

    outputs = [finish(p, code=None) for p in run(sabotage(".saving/checkpoint-3", 20, rank=1))]
    assert any("SIGKILL" in output for output in outputs)
    assert "each saves its own checkpoints" in outputs[0]
    outputs = [finish(process) for process in run()]
    assert "resuming at step" in outputs[0]
    for node in nodes:
        assert largest_difference(weights(node / "out"), weights(single)) < 1e-5
        assert (node / "out" / "checkpoint-4" / "manifest.json").is_file()


def test_the_shipped_configuration_for_cpus_trains_saves_and_resumes(
    expected: tuple[Path, Path], tmp_path: Path
) -> None:
    model, single = expected
    folder = tmp_path / "accelerated"
    folder.mkdir()
    write_run(folder, model)
    shutil.copytree(ROOT / "configs", folder / "configs")
    command = [
        "accelerate.commands.accelerate_cli",
        *("launch", "--config_file", "configs/accelerate/ddp_cpu.yaml"),
        *("-m", "unidpo_mm", "train", "recipe.yaml", "train.gradient_accumulation_steps=2"),
    ]
    finish(start(command, folder, sabotage(".saving/checkpoint-3", 5)), code=None)
    assert (folder / "out" / "checkpoint-2" / "rng_state_1.pth").is_file()
    assert "resuming at step 2 of 4" in finish(start(command, folder))
    assert largest_difference(weights(folder / "out"), weights(single)) < 1e-5


def test_a_sharded_run_resumes_bit_equal(checkpoint: Checkpoint, tmp_path: Path) -> None:
    worker = Path(__file__).parent / "sharded_worker.py"
    command = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(worker)]
    output = finish(start([*command, str(checkpoint("llava")), str(tmp_path)], tmp_path))
    assert "sharded and equal" in output
