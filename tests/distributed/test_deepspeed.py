"""DeepSpeed ZeRO-2 and ZeRO-3 in two processes on the CPU give the results of a single process.

DeepSpeed is installed by `make test-deepspeed`. The processes have the environment that `accelerate
launch` sets for the shipped configurations; the last test starts that launcher itself.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.accelerate_configs import CONFIGS
from support.runs import largest_difference, sabotage, weights, write_run
from support.ten_steps import MODEL_TYPES, TenSteps, largest_change

pytestmark = [pytest.mark.deepspeed, pytest.mark.timeout(1800)]

STAGES = ("deepspeed_zero2", "deepspeed_zero3")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> TenSteps:
    return TenSteps(tmp_path_factory.mktemp("deepspeed"), timeout=600)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("stage", STAGES)
def test_ten_steps_equal_those_of_a_single_process(
    runs: TenSteps, stage: str, model_type: str
) -> None:
    expected, single, _ = runs.result("single", model_type)
    record, divided, resumed = runs.result(stage, model_type)
    for ours, theirs in zip(expected["logs"], record["logs"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
    assert largest_change(single, divided) < TOLERANCE
    assert largest_change(divided, resumed) < TOLERANCE
    assert record["layout"] == expected["layout"], record["reason"]
    assert (record["divided"] > 0) == (stage == "deepspeed_zero3")


@pytest.mark.parametrize("stage", STAGES)
def test_lora_adapters_train_and_resume(runs: TenSteps, stage: str) -> None:
    _, single, _ = runs.result("single-lora", "llava")
    _, divided, resumed = runs.result(f"{stage}-lora", "llava")
    assert largest_change(single, divided) < TOLERANCE
    assert largest_change(divided, resumed) < TOLERANCE


@pytest.mark.parametrize("stage", STAGES)
def test_the_launcher_trains_is_killed_and_resumes(
    stage: str, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    model = checkpoint("llava")
    single, folder = tmp_path / "single", tmp_path / "divided"
    single.mkdir()
    folder.mkdir()
    write_run(single, model)
    write_run(folder, model)
    shutil.copytree(CONFIGS.parent, folder / "configs")
    common = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}

    def run(words: list[str], where: Path, env: dict[str, str] | None = None) -> str:
        result = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=where,
            env={**common, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        return result.stdout

    run(["unidpo_mm", "train", "recipe.yaml"], single)
    launch = [
        "accelerate.commands.accelerate_cli",
        *("launch", "--config_file", f"configs/accelerate/{stage}.yaml"),
        *("-m", "unidpo_mm", "train", "recipe.yaml", "train.gradient_accumulation_steps=1"),
        *("train.use_cpu=false", "train.ddp_backend=gloo"),
    ]
    output = run(launch, folder, sabotage(".saving/checkpoint-3", 5))
    assert (folder / "out" / "checkpoint-2").is_dir(), output[-4000:]
    assert not (folder / "out" / "checkpoint-3").exists()
    output = run(launch, folder)
    assert "resuming at step 2 of 4" in output, output[-4000:]
    assert largest_difference(weights(folder / "out"), weights(single / "out")) < TOLERANCE


def test_the_comparison_detects_a_mean_over_the_units_of_each_process(runs: TenSteps) -> None:
    _, single, _ = runs.result("single", "llama")
    _, wrong, _ = runs.result("deepspeed_zero2-wrong", "llama")
    assert largest_change(single, wrong) > TOLERANCE
