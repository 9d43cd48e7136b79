"""Labeled responses and the image preference in two processes give the weights of a single one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.forked_runs import preload, train
from support.runs import largest_difference, weights, write_run

Checkpoint = Callable[[str], Path]

LOSSES = {
    "labeled responses": ("loss={name: kto, beta: 1.0, kl: none}",),
    "image preference": ("loss={name: dpo}", "train.image_preference={anchor: 0.5}"),
}


@pytest.fixture(scope="module", autouse=True)
def _preloaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["UNIDPO_MM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    preload()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_give_the_weights_of_a_single_one(
    checkpoint: Checkpoint, tmp_path: Path, name: str
) -> None:
    """Some micro-batches have no image, and the last one is completed by fillers."""
    keys = (*LOSSES[name], "train.max_steps=3", "train.eval_strategy=no", "train.save_strategy=no")
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        write_run(folder, checkpoint("llava"), rows=15)
        accumulation = f"train.gradient_accumulation_steps={2 // processes}"
        ends = train(folder, *keys, accumulation, processes=processes)
        assert [end.code for end in ends] == [0] * processes, ends[0].output[-3000:]
    start, single, two = map(
        weights, (checkpoint("llava"), tmp_path / "1" / "out", tmp_path / "2" / "out")
    )
    assert largest_difference(single, two) < 1e-5
    assert largest_difference(start, single) > 1e-3  # the negative control: something was learned


def test_a_mean_of_mismatched_rewards_trains_in_two_processes(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """It is a mean over the micro-batch of a process, so results may differ from a single one."""
    write_run(tmp_path, checkpoint("llava"), rows=15)
    keys = ("loss={name: kto}", "train.max_steps=3", "train.save_strategy=no")
    ends = train(tmp_path, *keys, processes=2)
    assert [end.code for end in ends] == [0, 0], ends[0].output[-3000:]
