"""Losses, gradients and weights that are not finite are reported, and their step is replayed."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mixed_rows
from torch import nn
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.losses.base import implicit_rewards
from unidpo_mm.losses.dpo import LOSS as DPO
from unidpo_mm.losses.dpo import DPOLossConfig
from unidpo_mm.records import GroupBatch, LossOutput, PairLogps
from unidpo_mm.training.numerical_watch import NonFiniteError, NumericalWatch
from unidpo_mm.training.replay import replay, same_number
from unidpo_mm.training.step import StepOutput

Checkpoint = Callable[[str], Path]


def _root(pairs: PairLogps, config: DPOLossConfig) -> LossOutput:
    """Add the square root of the margin, whose gradient is infinite if policy equals reference."""
    output = DPO.compute(pairs, config)
    margin = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    root = (margin[0] - margin[1]).abs().sqrt()
    return dataclasses.replace(output, per_unit=output.per_unit + root)


ROOT_LOSS = dataclasses.replace(DPO, name="dpo_with_root", compute=_root)
POISON = "math"


class Poisoned(UniDPOTrainer):
    """Make the loss of one row NaN, from the second step on."""

    def preference_step(self, model: nn.Module, batch: GroupBatch) -> StepOutput:
        output = super().preference_step(model, batch)
        if self.state.global_step < 1 or POISON not in batch.pairs.row_ids:
            return output
        poison = torch.tensor(
            [float("nan") if row == POISON else 1.0 for row in batch.pairs.row_ids],
        )
        loss = dataclasses.replace(output.loss, per_unit=output.loss.per_unit * poison)
        return dataclasses.replace(output, loss=loss)


def build(checkpoint: Checkpoint, output: Path, *, lora: bool = False, **settings: Any) -> Any:
    args = config(
        output,
        **{
            "max_steps": 6,
            "save_strategy": "steps",
            "save_steps": 1,
            "per_device_train_batch_size": 4,
            **settings,
        },
    )
    rows = mixed_rows(images=True)
    lora_settings = LoraOptions(r=2, dropout=0.1) if lora else None
    model = checkpoint("llava")
    return make_trainer(model, rows, args, cls=Poisoned, peft_config=lora_settings)


def test_a_loss_that_is_not_finite_stops_the_run_and_its_row_is_reported(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    trainer = build(checkpoint, tmp_path / "out")
    with pytest.raises(NonFiniteError, match=rf"row '{POISON}': the loss is not finite") as caught:
        trainer.train()
    assert caught.value.exit_code == 3
    step = int(re.search(r"step (\d+),", str(caught.value))[1])
    last = tmp_path / "out" / f"checkpoint-{step - 1}"
    assert last.is_dir()  # the last good one
    from safetensors.torch import load_file

    saved = load_file(last / "model.safetensors")
    assert all(
        torch.equal(value, saved[name])
        for name, value in state_of(trainer).items()
        if name in saved
    )


def test_weights_that_were_never_finite_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = build(checkpoint, tmp_path / "out")
    name = next(name for name, _ in trainer.model.named_parameters() if "projector" in name)
    with torch.no_grad():
        trainer.model.get_parameter(name).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=r"weights are infinite or NaN: .*projector") as caught:
        trainer.train()
    assert "Restore the checkpoint" in str(caught.value)


def test_steps_that_are_not_finite_can_be_skipped(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = build(checkpoint, tmp_path / "out", on_nonfinite="skip")
    assert trainer.train().global_step == 6
    assert trainer.watch.skipped == 2  # of three epochs of two steps, the first is not poisoned
    assert all(torch.isfinite(value).all() for value in state_of(trainer).values())
    logged = [log for log in trainer.state.log_history if "loss" in log]
    assert all(log["loss"] == log["loss"] for log in logged)  # never NaN
    assert [
        log["rewards/margins"] == log["rewards/margins"]
        for log in logged
        if "rewards/margins" in log
    ].count(False) == 0
    assert [path.name for path in (tmp_path / "out").glob("nonfinite-step-*")] == [
        f"nonfinite-step-{_first_skipped(trainer)}"
    ]


def _first_skipped(trainer: Any) -> int:
    return next(
        log["step"]
        for log in trainer.state.log_history
        if log.get("grad_norm") != log.get("grad_norm")
    )


def test_a_run_that_skipped_every_step_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    settings = {"loss_type": ROOT_LOSS, "max_steps": 2}
    with pytest.raises(NonFiniteError, match="2 of 2 steps were skipped"):
        build(checkpoint, tmp_path / "out", on_nonfinite="skip", **settings).train()


def test_too_many_skipped_steps_stop_a_run(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unidpo_mm.training.nonfinite.MAX_SKIPPED", 0)
    with pytest.raises(NonFiniteError):
        build(checkpoint, tmp_path / "out", on_nonfinite="skip").train()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_dumped_step_is_reproduced(checkpoint: Checkpoint, tmp_path: Path, lora: bool) -> None:
    trainer = build(checkpoint, tmp_path / "out", lora=lora, disable_dropout=not lora)
    trainer.args.learning_rate = 1e25  # the second step's numbers overflow by themselves
    with pytest.raises(NonFiniteError):
        trainer.train()
    (dump,) = (tmp_path / "out").glob("nonfinite-step-*")
    result = replay(dump)
    assert result.reproduced
    assert result.gradients
    assert any(unit.recorded != unit.recorded for unit in result.units)


def test_a_dump_of_finite_losses_is_reproduced_exactly_and_a_change_is_detected(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    trainer = build(checkpoint, tmp_path / "out", loss_type=ROOT_LOSS)
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        trainer.train()
    (dump,) = (tmp_path / "out").glob("nonfinite-step-*")
    result = replay(dump)
    assert result.reproduced
    assert all(unit.recorded == unit.replayed for unit in result.units)
    weights = load_file(dump / "model" / "model.safetensors")
    weights = {name: value * 1.01 for name, value in weights.items()}
    save_file(weights, dump / "model" / "model.safetensors", metadata={"format": "pt"})
    assert not replay(dump).reproduced


def test_a_dump_of_version_1_is_replayed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = build(checkpoint, tmp_path / "out", loss_type=ROOT_LOSS)
    with pytest.raises(NonFiniteError):
        trainer.train()
    (dump,) = (tmp_path / "out").glob("nonfinite-step-*")
    expected = replay(dump)
    saved = torch.load(dump / "batches-0.pt", weights_only=True)
    for entry in saved["batches"]:
        entry["batch"] = _without_parts(entry["batch"])
    torch.save(saved, dump / "batches-0.pt")
    description = json.loads((dump / "dump.json").read_text())
    (dump / "dump.json").write_text(json.dumps({**description, "format": 1}))
    assert replay(dump).units == expected.units


def _without_parts(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch as version 1 wrote it."""
    inputs, targets, pairs, units = (
        batch[name] for name in ("inputs", "targets", "pairs", "responses")
    )
    images = inputs["media"].get("image", {"inputs": {}, "order": None})
    return {
        "layout": inputs["layout"],
        "token_inputs": inputs["tokens"],
        "image_inputs": images["inputs"],
        "image_order": images["order"],
        "segment": inputs["segment"],
        "row_position": inputs["row_position"],
        "row": targets["row"],
        "position": targets["position"],
        "target_ids": targets["ids"],
        "response": targets["response"],
        "lengths": targets["lengths"],
        "scores": batch["scores"],
        "chosen": pairs["indices"][:, 0],
        "rejected": pairs["indices"][:, 1],
        "pair_weight": pairs["weight"],
        "pair_source": pairs["source"],
        "targets": units["indices"][:, 0],
        "target_weight": units["weight"],
        "sources": batch["sources"],
        "pair_rows": pairs["row_ids"],
        "target_rows": units["row_ids"],
        "pair_domains": pairs["domains"],
        "target_domains": units["domains"],
        "response_rows": targets["row_ids"],
        "response_keys": batch["cache_keys"]["responses"],
        "image_digests": batch["cache_keys"]["images"],
    }


def test_weights_that_are_not_finite_are_not_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = build(checkpoint, tmp_path / "out", max_steps=1)
    original = trainer._maybe_log_save_evaluate

    def overflow(*args: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            next(p for p in trainer.model.parameters() if p.requires_grad).fill_(float("inf"))
        original(*args, **kwargs)

    trainer._maybe_log_save_evaluate = overflow
    with pytest.raises(NonFiniteError, match="weights are not finite after step 1"):
        trainer.train()
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_the_host_waits_for_the_device_once_per_step(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    original = NumericalWatch.is_finite

    def counted(self: NumericalWatch, **kwargs: Any) -> bool:
        nonlocal looks
        looks += 1
        return original(self, **kwargs)

    monkeypatch.setattr(NumericalWatch, "is_finite", counted)
    args = config(tmp_path / "out", max_steps=2, gradient_accumulation_steps=3)
    make_trainer(checkpoint("llama"), mixed_rows(images=False) * 3, args).train()
    assert looks == 2


@pytest.mark.parametrize(
    ("recorded", "replayed", "same"),
    [
        (1.0, 1.00001, True),
        (1.0, 1.1, False),
        (float("nan"), float("inf"), True),
        (float("nan"), 1.0, False),
        (1.0, float("nan"), False),
    ],
)
def test_numbers_are_compared_up_to_rounding(recorded: float, replayed: float, same: bool) -> None:
    assert same_number(recorded, replayed) is same
