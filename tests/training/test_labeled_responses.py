"""Runs on labeled responses: rows of every toolkit, metrics, checkpoints and the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from builders import make_image
from trainers import config, make_trainer, resumable_config, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.data.collate import collate
from unidpo_mm.errors import DataError, RecipeError

Checkpoint = Callable[[str], Path]

KTO = {"name": "kto", "beta": 1.0}


def labeled_rows(images: bool = False) -> list[dict[str, Any]]:
    """Return two responses to each of three prompts, the good one first."""
    rows = []
    for number in range(3):
        for good in (True, False):
            response = f"It is {number}" if good else "No idea at all"
            record: dict[str, Any] = {
                "prompt": [{"role": "user", "content": f"What is {number}?"}],
                "completion": [{"role": "assistant", "content": response}],
                "label": good,
            }
            rows.append({**record, "images": [make_image(number)]} if images else record)
    return rows


def toolkit_rows(name: str) -> list[dict[str, Any]]:
    rows = []
    for row in labeled_rows():
        question, response = row["prompt"][0]["content"], row["completion"][0]["content"]
        rows.append(
            {
                "trl": row,
                "ms-swift": {
                    "messages": [*row["prompt"], *row["completion"]],
                    "label": row["label"],
                },
                "llama-factory": {
                    "instruction": question,
                    "output": response,
                    "kto_tag": row["label"],
                },
            }[name]
        )
    return rows


def log_of(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    ["trl", pytest.param("ms-swift", marks=SLOW), pytest.param("llama-factory", marks=SLOW)],
)
def test_labeled_responses_of_every_toolkit_train(
    checkpoint: Checkpoint, tmp_path: Path, name: str
) -> None:
    args = config(tmp_path, loss=KTO, per_device_train_batch_size=6, max_steps=8)
    trainer = make_trainer(checkpoint("llama"), toolkit_rows(name), args)
    trainer.train()
    first, last = log_of(trainer)[0], log_of(trainer)[-1]
    assert first["loss"] == pytest.approx(0.5, abs=1e-6)  # all rewards and kl are 0
    assert last["loss"] < first["loss"] - 0.05
    assert last["rewards/chosen"] > last["rewards/rejected"]
    margin = last["rewards/chosen"] - last["rewards/rejected"]
    assert last["rewards/margins"] == pytest.approx(margin, abs=1e-9)
    assert last["rewards/accuracies"] == 1.0
    assert last["kl"] >= 0


@SLOW
def test_images_and_labels(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = config(tmp_path, loss=KTO, per_device_train_batch_size=6, max_steps=3)
    trainer = make_trainer(checkpoint("qwen2_vl"), labeled_rows(images=True), args)
    trainer.train()
    assert log_of(trainer)[-1]["loss"] < 0.5


def test_pairs_are_two_labels_each(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The same run on pairs and on their responses with labels."""
    labeled = labeled_rows()
    pairs = [
        {"prompt": good["prompt"], "chosen": good["completion"], "rejected": bad["completion"]}
        for good, bad in zip(labeled[::2], labeled[1::2], strict=True)
    ]
    losses = []
    for name, rows in (("labels", labeled), ("pairs", pairs)):
        args = config(
            tmp_path / name,
            loss=KTO,
            group_by_prompt=True,
            per_device_train_batch_size=6,
            max_steps=3,
        )
        trainer = make_trainer(checkpoint("llama"), rows, args)
        trainer.train()
        losses.append([entry["loss"] for entry in log_of(trainer)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@SLOW
def test_cached_references_have_the_same_losses(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    losses = []
    for reference in ("auto", "cached"):
        args = config(tmp_path / reference, loss=KTO, reference=reference, max_steps=6)
        trainer = make_trainer(checkpoint("llama"), labeled_rows(), args)
        trainer.train()
        losses.append([entry["loss"] for entry in log_of(trainer)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_held_out_labels_and_pairs_are_evaluated(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = labeled_rows()
    pair = {"prompt": "Say it", "chosen": "It is so", "rejected": "No"}
    args = config(tmp_path, loss=KTO, max_steps=1)
    trainer = make_trainer(
        checkpoint("llama"), rows[:4], args, eval_dataset={"labels": rows, "mixed": [rows[0], pair]}
    )
    trainer.train()
    for name in ("labels", "mixed"):
        values = trainer.evaluate(trainer.eval_dataset[name], metric_key_prefix=f"eval_{name}")
        assert 0 < values[f"eval_{name}_loss"] < 1
        assert {f"eval_{name}_rewards/margins", f"eval_{name}_kl"} <= values.keys()


def test_the_ledger_has_a_line_for_each_label(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = resumable_config(
        tmp_path, loss_type=None, loss=KTO, per_device_train_batch_size=6, max_steps=2
    )
    make_trainer(checkpoint("llama"), labeled_rows(), args).train()
    (path,) = (tmp_path / "ledger").glob("*.parquet")
    lines = pq.read_table(path).to_pylist()
    assert len(lines) == 12
    assert {line["pair_id"].rpartition(":")[2] for line in lines} == {"good", "bad"}
    for line in lines:
        good = line["pair_id"].endswith("good")
        side, other = ("chosen", "rejected") if good else ("rejected", "chosen")
        assert line[f"reward_{other}"] == line["kl"]
        assert line["reward_margin"] == line["reward_chosen"] - line["reward_rejected"]
        assert line[f"policy_{other}_logp"] is None
        # d loss / d reward is the derivative of the logistic function
        slope = torch.sigmoid(torch.tensor(line[f"reward_{side}"] - line["kl"])).double()
        assert line["contribution"] == pytest.approx(float(slope * (1 - slope)), abs=1e-6)
        assert (line[f"dloss_d{side}"] < 0) == good


@SLOW
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    full = make_trainer(
        checkpoint("llama"),
        labeled_rows(),
        resumable_config(tmp_path / "full", loss_type=None, loss=KTO),
    )
    full.train()
    args = resumable_config(tmp_path / "half", loss_type=None, loss=KTO)
    args.max_steps = 2
    make_trainer(checkpoint("llama"), labeled_rows(), args).train()
    args = resumable_config(tmp_path / "half", loss_type=None, loss=KTO)
    resumed = make_trainer(checkpoint("llama"), labeled_rows(), args)
    resumed.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-2"))
    for name, value in state_of(full).items():
        assert torch.equal(value, state_of(resumed)[name]), name


def test_a_loss_of_pairs_refuses_labels(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = config(tmp_path, loss="dpo")
    with pytest.raises(DataError, match=r"row 1: the row has a label and no pair.*loss 'kto'"):
        make_trainer(checkpoint("llama"), labeled_rows(), args)


def test_kto_refuses_rows_with_neither(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [*labeled_rows(), {"prompt": "What?", "responses": [{"text": "a"}]}]
    with pytest.raises(DataError, match="row 7: the row has neither a label nor a pair"):
        make_trainer(checkpoint("llama"), rows, config(tmp_path, loss=KTO))


def test_a_stream_has_no_mismatched_responses(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from datasets import Dataset

    stream = Dataset.from_list(labeled_rows()).to_iterable_dataset()
    folder = str(checkpoint("llama"))
    with pytest.raises((DataError, RecipeError), match=r"loss\.kl"):
        UniDPOTrainer(folder, config(tmp_path, loss=KTO), train_dataset=stream)
    args = config(tmp_path, loss={**KTO, "kl": "none"}, group_by_prompt=False)
    trainer = UniDPOTrainer(folder, args, train_dataset=stream)
    trainer.train()
    assert log_of(trainer)[-1]["loss"] < 0.5


def test_other_rows_are_evaluated_with_their_labels(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Given as records, they have the same loss as an evaluation set of the trainer."""
    args = config(tmp_path, loss=KTO, max_steps=1)
    rows = labeled_rows()
    trainer = make_trainer(checkpoint("llama"), rows, args, eval_dataset=rows)
    trainer.train()
    expected = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(expected, rel=1e-9)
    assert trainer.evaluate(rows[:2])["eval_loss"] > 0  # of one prompt


def test_long_mismatched_responses_are_truncated(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A short row fits with its own response, and not with that of the other row."""
    rows = [
        {"prompt": "What is it?" * 4, "completion": "yes", "label": True},
        {"prompt": "Say", "completion": "no " * 12, "label": False},
    ]
    args = config(tmp_path, loss=KTO, length_policy="drop", max_steps=2)
    args.max_length = 60
    trainer = make_trainer(checkpoint("llama"), rows, args)
    groups = [trainer.train_dataset[number] for number in range(2)]
    limits = [max(map(len, group.response_ids)) + len(group.prompt_ids) for group in groups]
    assert max(limits) <= 60
    assert all(group.cut_responses == 0 for group in groups)
    untruncated, mismatched = groups[1].response_ids[0], groups[0].response_ids[1]
    assert len(mismatched) < len(untruncated)  # the same response, truncated
    trainer.train()


def test_a_batch_of_fillers_has_no_label(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """With several processes, fillers complete batches, and some batches are fillers only."""
    args = config(tmp_path, loss=KTO)
    trainer = make_trainer(checkpoint("qwen2_vl"), labeled_rows(), args)
    adapter = trainer.parts.adapter
    for groups in ([trainer.train_dataset[0], adapter.filler()], [adapter.filler()]):
        batch = collate(groups, pad_token_id=adapter.pad_token_id)
        output = trainer.preference_step(trainer.model, batch)
        assert output.weight[-1] == 0
        assert bool(output.loss.per_unit.isfinite().all())
    assert batch.pairs.good is None
