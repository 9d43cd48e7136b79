"""Runs on data that are streamed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forked_runs import Kill, train
from support.runs import largest_difference, weights, write_run
from trainers import config

from unidpo_mm import UniDPOTrainer
from unidpo_mm.errors import DataError

STREAM = ("data.sources.0.streaming=true", "data.stream_block=5", "loss.tau_good=3")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_continues_at_the_same_row(
    checkpoint: Callable[[str], Path], tmp_path: Path, processes: int
) -> None:
    keys = (*STREAM, f"train.gradient_accumulation_steps={2 // processes}")
    folders = [tmp_path / "uninterrupted", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        write_run(folder, checkpoint("llava"), optim="adamw_torch", rows=7)
    (uninterrupted, *_) = train(folders[0], *keys, processes=processes)
    assert uninterrupted.code == 0, uninterrupted.output[-2000:]
    killed = train(folders[1], *keys, processes=processes, kill=Kill(match="saving/checkpoint-3"))
    assert killed[0].signal is not None
    state = json.loads((folders[1] / "out/checkpoint-2/stream.json").read_text())
    assert state[0] == 3  # of the micro-batches 0 to 7
    (again, *_) = train(folders[1], *keys, processes=processes)
    assert again.code == 0, again.output[-2000:]
    first, second = (weights(folder / "out") for folder in folders)
    assert largest_difference(first, second) == 0


class Rows(torch.utils.data.IterableDataset[dict[str, Any]]):
    def __init__(self, rows: int = 9) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return (
            {"prompt": f"q{n}", "chosen": f"a{n}", "rejected": "b", "score_chosen": 2 + n % 2,
             "score_rejected": 1}
            for n in range(self.rows)
        )  # fmt: skip


def test_what_needs_all_rows_is_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    args = config(
        tmp_path,
        max_steps=-1,
        eval_fraction=0.1,
        group_by_prompt=True,
        length_policy="drop",
        max_skipped_fraction=0.1,
        tokens_per_micro_batch=100,
        reference="cached",
        loss={"name": "uni_dpo", "tau_good": "median"},
    )
    with pytest.raises(DataError) as error:
        UniDPOTrainer(str(checkpoint("llama")), args, train_dataset=Rows())
    text = str(error.value)
    for name in (
        *("max_steps", "eval_fraction", "group_by_prompt", "length_policy", "tau_good"),
        *("max_skipped_fraction", "tokens_per_micro_batch", "reference"),
    ):
        assert name in text


def test_an_iterable_data_set_trains_on_its_rows(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    row_ids: list[str] = []

    class Observer:
        def on_step(self, batch: Any, output: Any) -> None:
            row_ids.extend(batch.pairs.row_ids)

    args = config(tmp_path, loss_type="dpo", max_steps=5, stream_block=4)
    trainer = UniDPOTrainer(
        str(checkpoint("llama")), args, train_dataset=Rows(), observers=[Observer()]
    )
    trainer.train()
    assert sorted(row_ids[:9]) == [f"data:{n}" for n in range(1, 10)]
    assert len(row_ids) == 10
