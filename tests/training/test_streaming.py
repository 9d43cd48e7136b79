"""Runs on data that are streamed."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forked_runs import Kill, train
from support.runs import largest_difference, weights, write_run
from trainers import config, resumable_config

from unidpo_mm import UniDPOTrainer
from unidpo_mm.check import CheckOptions, check_data
from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import DataFiles
from unidpo_mm.errors import DataError, RecipeError
from unidpo_mm.training.configured_loss import configured_loss
from unidpo_mm.training.prepare import Prepared, prepare
from unidpo_mm.training.resuming import _stream_start

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
        memory=1.0,
        loss={"name": "uni_dpo", "tau_good": "median"},
    )
    with pytest.raises(DataError) as error:
        UniDPOTrainer(str(checkpoint("llama")), args, train_dataset=Rows())
    text = str(error.value)
    for name in (
        *("max_steps", "eval_fraction", "group_by_prompt", "length_policy", "tau_good"),
        *("max_skipped_fraction", "tokens_per_micro_batch", "reference", "memory"),
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


def files(folder: Path, *names: str, **options: Any) -> DataFiles:
    """Write streamed sources with these names, of nine rows each."""
    sources = []
    for name in names:
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in Rows()))
        sources.append(SourceOptions(path=str(path), name=name, streaming=True, **options))
    return DataFiles(sources=sources)


def prepared(folder: Path, data: Any, **options: Any) -> Prepared:
    args = config(folder, **{"loss": {"name": "uni_dpo", "tau_good": 3}, **options})
    return prepare(data, None, args, configured_loss(args), None)


def test_a_rare_source_may_have_parameters(tmp_path: Path) -> None:
    common, rare = files(tmp_path, "common", "rare").sources
    data = DataFiles(sources=[common, rare.model_copy(update={"weight": 0.0001})])
    parameters = {"rare": {"tau_good": 2}}
    for seed in range(3):
        result = prepared(tmp_path, data, loss_by_source=parameters, seed=seed)
        assert not result.problems
        assert len(result.train_rows) == 18
    data = DataFiles(sources=[common])
    (problem,) = prepared(tmp_path, data, loss_by_source=parameters).problems
    assert "data source 'rare', loss" in str(problem)
    (problem,) = prepared(tmp_path, Rows(), loss_by_source=parameters).problems
    assert "data source 'rare', loss" in str(problem)


def test_scales_and_columns_of_the_first_rows_are_checked(tmp_path: Path) -> None:
    data = files(tmp_path, "scored", columns={"images": "imgz"})
    result = prepared(tmp_path, data, score_scale=(10, 20))
    places = [problem.where for problem in result.problems]
    assert places == [f"{data.sources[0].path}, columns.images", "data.score_scale"]
    assert result.reports[0].records == 9


def test_a_check_refuses_the_same_options_as_a_run(tmp_path: Path) -> None:
    data = files(tmp_path, "scored")
    args = config(tmp_path, loss="uni_dpo", max_steps=-1, group_by_prompt=True)
    report = check_data(data, CheckOptions(args=args))
    run = prepare(data, None, args, configured_loss(args), None)
    assert list(report.problems) == list(dict.fromkeys(run.problems))
    places = {problem.where for problem in report.problems}
    assert {"train.max_steps", "data.group_by_prompt", "loss.tau_good"} <= places
    report = check_data(data)
    assert not report.problems
    assert any("only the first 9 rows were checked" in text for text in report.warnings)


def test_a_resumed_run_needs_the_same_number_of_sources(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = prepared(tmp_path, files(tmp_path, "a", "b")).stream
    assert plan is not None
    record = tmp_path / "stream.json"
    record.write_text("[5, 6, 0, 1, 2, 0, 1, 2]")
    assert _stream_start(str(tmp_path), plan) == (6, [6, 0, 1, 2, 0, 1, 2])
    record.write_text("[5, 6, 0, 1, 2]")
    with pytest.raises(RecipeError, match="number of streamed sources has changed"):
        _stream_start(str(tmp_path), plan)
    for text in ("5", "[]", "[null]", '{"a": 1}', "{"):
        record.write_text(text)
        assert _stream_start(str(tmp_path), plan) == (0, None)
    assert caplog.text.count("read again from its start") == 5


def test_the_data_of_a_run_can_be_sent_to_a_spawned_worker(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    args = config(tmp_path, loss={"name": "uni_dpo", "tau_good": 3})
    data = files(tmp_path, "a", "b")
    trainer = UniDPOTrainer(str(checkpoint("llama")), args, train_dataset=data)
    dataset: Any = trainer.train_dataset
    expected = dataset[0].state
    assert pickle.loads(pickle.dumps(dataset))[0].state == expected


def test_data_workers_do_not_change_a_run(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from datasets import Dataset

    results = []
    for workers in (0, 2):
        data = Dataset.from_list(list(Rows())).to_iterable_dataset(num_shards=3)
        args = resumable_config(
            tmp_path / str(workers), dataloader_num_workers=workers, stream_block=4, save_steps=100
        )
        trainer = UniDPOTrainer(str(checkpoint("llama")), args, train_dataset=data)
        trainer.train()
        results.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert results[0] == results[1]
    assert len(results[0]) == 4
