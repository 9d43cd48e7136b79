"""Recorded values: equal to independent formulas, for every loss, and the same every time."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from builders import batch_of, load_tiny, mixed_rows
from trainers import config, make_trainer

from unidpo_mm import UniDPOTrainer
from unidpo_mm.ledger.tables import read_ledger
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.plugins import load_loss
from unidpo_mm.records import GroupBatch, Response, SequenceLogps
from unidpo_mm.training import ledger_recorder
from unidpo_mm.training.configured_loss import configure_loss
from unidpo_mm.training.ledger_recorder import LedgerRecorder, recorded_values
from unidpo_mm.training.step import StepOutput, pair_up

Checkpoint = Callable[[str], Path]

BETA, ETA, GAMMA, TAU_REF, NLL = 1.5, 0.6, 2.0, 0.3, 0.05


def lines(output: Path) -> list[dict[str, Any]]:
    return read_ledger(output).visits.collect().to_dicts()


def train(model: Path, output: Path, **settings: Any) -> UniDPOTrainer:
    args = config(output, **{"max_steps": 6, **settings})
    trainer = make_trainer(model, mixed_rows(images=True), args)
    trainer.train()
    return trainer


def uni_dpo(output: Path, model: Path, **settings: Any) -> UniDPOTrainer:
    parameters = {"eta": ETA, "gamma": GAMMA, "tau_ref": TAU_REF, "nll_lambda": NLL}
    loss = {"name": "uni_dpo", "beta": BETA, "tau_good": 3.0, **parameters}
    return train(model, output, loss=loss, gradient_accumulation_steps=2, **settings)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def by_hand(line: dict[str, Any]) -> dict[str, float]:
    """Return the columns of a line of Uni-DPO that follow from its log-probs and scores."""
    sides = ("chosen", "rejected")
    policy = {side: line[f"policy_{side}_logp"] / line[f"{side}_length"] for side in sides}
    reference = {side: line[f"reference_{side}_logp"] / line[f"{side}_length"] for side in sides}
    rewards = {side: BETA * (policy[side] - reference[side]) for side in sides}
    margin = rewards["chosen"] - rewards["rejected"]
    policy_margin = BETA * (policy["chosen"] - policy["rejected"])
    w_qual = sigmoid(ETA * (line["score_chosen"] - line["score_rejected"]))
    w_perf = (1 - sigmoid(policy_margin - TAU_REF)) ** GAMMA
    gate = float(reference["chosen"] > policy["chosen"] and line["score_chosen"] >= 3.0)
    # d/dm of -w_qual w_perf(m) log sigmoid(m), with the margin of the policy moving along
    by_margin = (
        w_qual
        * w_perf
        * (GAMMA * sigmoid(policy_margin - TAU_REF) * math.log(sigmoid(margin)) - sigmoid(-margin))
    )
    # half a unit of margin is half a unit of the chosen response's reward, so 1 / (2 beta) of NLL
    by_margin -= NLL * gate / (2 * BETA)
    return {
        "score_margin": line["score_chosen"] - line["score_rejected"],
        "reward_chosen": rewards["chosen"],
        "reward_rejected": rewards["rejected"],
        "reward_margin": margin,
        "w_qual": w_qual,
        "w_perf": w_perf,
        "nll_gate": gate,
        "loss": -w_qual * w_perf * math.log(sigmoid(margin)) - NLL * gate * policy["chosen"],
        "contribution": abs(by_margin),
    }


def test_values_follow_from_the_log_probs_and_scores_of_their_line(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    uni_dpo(tmp_path, checkpoint("llava"))
    recorded = lines(tmp_path)
    assert len(recorded) > 20
    assert {line["nll_gate"] for line in recorded} == {0.0, 1.0}
    for line in recorded:
        for name, value in by_hand(line).items():
            assert line[name] == pytest.approx(value, abs=1e-6), (line["step"], name)


def test_a_weight_that_is_detached_contributes_less(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = checkpoint("llava")
    uni_dpo(tmp_path / "undetached", model)
    loss = {"name": "uni_dpo", "beta": BETA, "tau_good": 3.0, "detach_weights": True}
    loss |= {"eta": ETA, "gamma": GAMMA, "tau_ref": TAU_REF, "nll_lambda": NLL}
    train(model, tmp_path / "detached", loss=loss, gradient_accumulation_steps=2)
    first, second = lines(tmp_path / "undetached")[0], lines(tmp_path / "detached")[0]
    assert first["w_perf"] == second["w_perf"]  # the same pair and the same weights of the model
    assert first["contribution"] > 1.2 * second["contribution"]
    assert second["contribution"] != pytest.approx(by_hand(second)["contribution"], rel=1e-3)


def test_a_run_of_the_same_seed_has_the_same_ledger(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = checkpoint("llava")
    for name, seed in (("a", 0), ("b", 0), ("other", 1)):
        uni_dpo(tmp_path / name, model, data_seed=seed)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert lines(tmp_path / "a") != lines(tmp_path / "other")


def test_every_pair_has_a_line_in_each_pass(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = train(checkpoint("llava"), tmp_path, max_steps=-1, num_train_epochs=2)
    visits = read_ledger(tmp_path).visits.collect()
    rows = trainer.parts.train_rows
    ids = sorted(row.pair_id(pair) for row in rows for pair in row.pairs)
    for epoch in (0, 1):
        passed = visits.filter(pl.col("epoch").floor() == epoch)
        assert sorted(passed["pair_id"]) == ids
    assert set(visits["source"]) == {row.source for row in rows}
    assert set(visits["domain"]) == {row.domain for row in rows}
    assert visits["step"].max() == trainer.state.max_steps
    keys = visits.select("step", "rank", "position")
    assert keys.is_unique().all()
    assert keys.equals(keys.sort("step", "rank", "position"))


def test_nothing_is_written_if_it_is_off(checkpoint: Checkpoint, tmp_path: Path) -> None:
    train(checkpoint("llava"), tmp_path, ledger=False, max_steps=1)
    assert not (tmp_path / "ledger").exists()


def test_values_are_read_every_so_many_steps_without_a_log(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_recorder, "MAX_KEPT_STEPS", 2)
    counts = []
    flush = LedgerRecorder.flush

    def counted(recorder: LedgerRecorder) -> None:
        counts.append(len(recorder._kept))
        flush(recorder)

    monkeypatch.setattr(LedgerRecorder, "flush", counted)
    train(checkpoint("llava"), tmp_path, max_steps=6, logging_strategy="no")
    assert counts == [2, 2, 2]  # before steps 3 and 5, and at the end
    assert {line["step"] for line in lines(tmp_path)} == {1, 2, 3, 4, 5, 6}


def test_a_skipped_step_is_marked(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = config(tmp_path, max_steps=4, on_nonfinite="skip")
    trainer = make_trainer(checkpoint("llama"), mixed_rows(images=False), args)
    step = trainer.preference_step

    def broken(model: Any, batch: GroupBatch) -> StepOutput:
        output = step(model, batch)
        if trainer.state.global_step != 1:
            return output
        loss = dataclasses.replace(output.loss, per_unit=output.loss.per_unit * math.nan)
        return dataclasses.replace(output, loss=loss)

    monkeypatch.setattr(trainer, "preference_step", broken)
    trainer.train()
    applied = {line["step"]: line["applied"] for line in lines(tmp_path)}
    assert applied == {1: True, 2: False, 3: True, 4: True}
    assert all((line["loss"] is None) == (line["step"] == 2) for line in lines(tmp_path))


def output_of(name: str, loaded: LoadedModel) -> tuple[GroupBatch, StepOutput]:
    """Return a step of a loss with drawn log-probs."""
    rows = mixed_rows(images=False)
    if load_loss(name).needs_labels:
        rows = [row.for_labels(Response("Something else")) for row in rows]
    batch = batch_of(loaded, rows)
    draw = torch.Generator().manual_seed(1)
    length = batch.targets.lengths.double()

    def logps() -> SequenceLogps:
        values = -torch.rand(len(length), generator=draw, dtype=torch.float64) - 0.1
        place = torch.arange(int(length.max()))
        tokens = torch.where(place < length.unsqueeze(-1), values.unsqueeze(-1), 0.0)
        return SequenceLogps(values * length, length, tokens=tokens)

    policy = logps()
    assert policy.tokens is not None
    for tensor in (policy.sum, policy.tokens):
        tensor.requires_grad_()
    pairs = pair_up(policy, logps(), batch)
    settings = configure_loss(name, {"tau_good": 2.0} if name == "uni_dpo" else {})
    output = settings.compute(policy, pairs, batch)
    return batch, StepOutput(output, batch.units(settings.loss.unit).weight, policy, pairs)


def loss_names() -> list[str]:
    folder = Path(load_loss.__globals__["__file__"]).parent / "losses"
    names = {path.stem for path in folder.glob("*.py")}
    return sorted(names - {"__init__", "base", "image_preference", "running", "weights"})


@pytest.mark.parametrize("name", loss_names())
def test_derivatives_of_every_loss_are_those_of_each_unit_alone(
    checkpoint: Checkpoint, name: str
) -> None:
    loss = load_loss(name)
    batch, output = output_of(name, load_tiny(checkpoint("llama")))
    values = recorded_values(batch, output, loss.unit)
    units = batch.units(loss.unit)
    assert len(set(units.indices.flatten().tolist())) < units.indices.numel() or loss.unit != "pair"
    for unit, responses in enumerate(units.indices.tolist()):
        by_sum, by_token = torch.autograd.grad(
            output.loss.per_unit[unit],
            [output.policy.sum, output.policy.tokens],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        sizes = zip(by_token, output.policy.length.int().tolist(), strict=True)
        slope = by_sum + torch.stack([tokens[:size].mean() for tokens, size in sizes])
        sides = ["chosen", "rejected"]
        if units.good is not None:  # a bad response is in the columns of rejected ones
            responses, sides = responses[:1], sides[0 if units.good[unit] else 1 :][:1]
        for side, response in zip(sides, responses, strict=False):
            assert float(values[f"dloss_d{side}"][unit]) == pytest.approx(float(slope[response]))
    if loss.unit == "pair":
        assert bool(values["contribution"].isfinite().all())


def test_the_contribution_to_dpo_is_the_sigmoid_of_the_negative_margin(
    checkpoint: Checkpoint,
) -> None:
    batch, output = output_of("dpo", load_tiny(checkpoint("llama")))
    values = recorded_values(batch, output, "pair")
    margins = values["reward_chosen"] - values["reward_rejected"]
    torch.testing.assert_close(values["contribution"], torch.sigmoid(-margins))


def test_a_loss_without_gradient_has_no_derivatives(checkpoint: Checkpoint) -> None:
    batch, output = output_of("dpo", load_tiny(checkpoint("llama")))
    loss = dataclasses.replace(output.loss, per_unit=output.loss.per_unit.detach())
    values = recorded_values(batch, dataclasses.replace(output, loss=loss), "pair")
    assert bool(values["contribution"].isnan().all())
    assert bool(values["loss"].isfinite().all())
