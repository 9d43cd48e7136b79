"""The actual command line under torchrun: saved at every step, killed, resumed, evaluated."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import largest_difference, launch, sabotage, weights, write_run

from unidpo_mm.config import load_recipe
from unidpo_mm.training.run import train_from_recipe

Checkpoint = Callable[[str], Path]


def one_process(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Train in this process and return the final evaluation."""
    folder.mkdir()
    recipe = write_run(folder, model)
    monkeypatch.chdir(folder)
    trainer = train_from_recipe(load_recipe(recipe))
    return [log for log in trainer.state.log_history if "eval_loss" in log][-1]


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def test_two_processes_that_are_killed_and_resume_equal_a_single_one(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint("llava")
    expected = one_process(tmp_path / "one", model, monkeypatch)
    folder = tmp_path / "two"
    folder.mkdir()
    recipe = write_run(folder, model)
    same_step = "train.gradient_accumulation_steps=1"  # twice the processes
    env = {"UNIDPO_MM_CACHE": str(tmp_path / "cache")}

    kill = sabotage(".saving/checkpoint-3/manifest", 1)  # all other files are written
    cached = "train.reference=cached"
    killed = launch(recipe, same_step, cached, processes=2, env={**env, **kill})
    output = killed.communicate(timeout=200)[0]
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in output
    assert (folder / "out" / ".saving" / "checkpoint-3" / "optimizer.pt").is_file()
    assert not (folder / "out" / "checkpoint-3").exists()

    # the cached reference of the first half and the live one of the second are the same numbers
    resumed = launch(recipe, same_step, processes=2, env=env)
    output = resumed.communicate(timeout=200)[0]
    assert resumed.returncode == 0, output
    assert output.count("resuming at step 2 of 4") == 1
    assert largest_difference(weights(folder / "out"), weights(tmp_path / "one" / "out")) < 1e-5
    evaluations = [log for log in history(folder / "out") if "eval_loss" in log]
    for name, value in expected.items():
        if not name.endswith(("runtime", "per_second")):
            assert evaluations[-1][name] == pytest.approx(value, abs=1e-5), name
    assert sorted(path.name for path in (folder / "out").glob("checkpoint-*")) == [
        "checkpoint-3",
        "checkpoint-4",
    ]
    assert (folder / "out" / "checkpoint-4" / "rng_state_1.pth").is_file()
    lines = (folder / "out" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]  # no duplicates
