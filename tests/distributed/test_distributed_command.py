"""The command line in two processes: saved at every step, killed, resumed, evaluated.

`test_distributed_launches.py` starts the same command with torchrun itself.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.forked_runs import Kill, preload, train
from support.runs import largest_difference, weights, write_run

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
    write_run(folder, model)
    same_step = "train.gradient_accumulation_steps=1"  # twice the processes
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    preload()

    kill = Kill(match=".saving/checkpoint-3/manifest")  # all other files are written
    words = (same_step, "train.reference=cached")
    killed = train(folder, *words, processes=2, kill=kill, timeout=200)
    assert not killed[0].timed_out
    assert killed[0].signal == signal.SIGKILL, killed[0].output
    assert (folder / "out" / ".saving" / "checkpoint-3" / "optimizer.pt").is_file()
    assert not (folder / "out" / "checkpoint-3").exists()

    # the cached reference of the first half and the live one of the second are the same numbers
    resumed = train(folder, same_step, processes=2, timeout=200)
    output = "\n".join(process.output for process in resumed)
    assert [process.code for process in resumed] == [0, 0], output
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
