"""Runs with the image preference: log-probs, layouts, caches, mixed data and refused options."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image
from trainers import config, make_trainer, resumable_config, state_of

from unidpo_mm.data.collate import collate
from unidpo_mm.data.load import rows_from_records
from unidpo_mm.errors import DataError, RecipeError, UniDPOError
from unidpo_mm.records import Layout
from unidpo_mm.training.configured_loss import configured_loss
from unidpo_mm.training.ledger_recorder import recorded_values

Checkpoint = Callable[[str], Path]

DPO = {"name": "dpo", "beta": 1.0}


def image_rows(count: int = 4, **changed: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"What is {number}?",
            "chosen": f"A red square {number}",
            "rejected": "Blue",
            "images": [make_image(number, (56, 56))],
            **changed,
        }
        for number in range(count)
    ]


def text_rows(count: int = 2) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Say {number}.", "chosen": "Hello, world!", "rejected": "Two"}
        for number in range(count)
    ]


def log_of(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


VIEWS = ("crop", "mask", "noise", "shuffle", "column")


@pytest.mark.parametrize(
    ("model_type", "view"),
    [
        ("qwen2_vl", "crop"),
        ("llava", "shuffle"),
        *(pytest.param("qwen2_vl", view, marks=pytest.mark.slow) for view in VIEWS[1:]),
    ],
)
def test_the_image_is_learned(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, view: str
) -> None:
    changed = {"rejected_images": [make_image(9, (56, 56))]} if view == "column" else {}
    args = config(
        tmp_path,
        loss=DPO,
        image_preference={"weight": 0.5, "view": view},
        per_device_train_batch_size=4,
        max_steps=4,
    )
    trainer = make_trainer(checkpoint(model_type), image_rows(**changed), args)
    trainer.train()
    first, last = log_of(trainer)[0], log_of(trainer)[-1]
    assert first["loss"] == pytest.approx(1.5 * math.log(2), abs=1e-5)  # all rewards are 0
    assert first["image_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["image_margin"] > 0
    assert last["image_loss"] < first["image_loss"]


def test_log_probs_are_those_of_a_row_with_the_other_image(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    args = config(tmp_path, loss=DPO, image_preference={}, per_device_train_batch_size=8)
    trainer = make_trainer(checkpoint("qwen2_vl"), [*image_rows(2), *text_rows(1)], args)
    adapter, rows = trainer.parts.adapter, trainer.parts.train_rows
    groups = [trainer.train_dataset[number] for number in range(3)]
    options: dict[str, Any] = {"pad_token_id": adapter.pad_token_id}
    layouts: tuple[Layout, ...] = ("plain", "packed", "joined")
    for layout in layouts:
        batch = collate(groups, layout=layout, media_once=layout != "plain", **options)
        output = trainer.preference_step(trainer.model, batch)
        assert output.pairs.has_view is not None
        assert output.pairs.has_view.tolist() == [bool(row.images) for row in rows]
        for number, row in enumerate(rows):
            if not row.images:
                assert output.loss.terms["image_loss"][number] == 0
                continue
            alone = collate([adapter.encode(row.with_other_images())], **options)
            expected = trainer.preference_step(trainer.model, alone).policy.sum
            view = output.pairs.policy_view
            assert view is not None
            torch.testing.assert_close(
                view.sum[number : number + 1], expected, rtol=1e-4, atol=1e-4
            )
            other = output.pairs.policy_chosen.sum[number]
            assert abs(float(other - expected)) > 1e-3  # the negative control: another image


def test_several_responses_share_one_view(checkpoint: Checkpoint, tmp_path: Path) -> None:
    responses = [{"text": text, "score": score} for text, score in (("Red", 5), ("A", 3), ("B", 1))]
    record = {"prompt": "What?", "responses": responses, "images": [make_image(1, (56, 56))]}
    args = config(tmp_path, loss=DPO, image_preference={}, per_device_train_batch_size=8)
    trainer = make_trainer(checkpoint("qwen2_vl"), [record], args)
    group = trainer.train_dataset[0]
    assert group.view is not None
    assert len(group.view.response_ids) == 2  # the chosen responses of three pairs
    batch = collate([group], pad_token_id=trainer.parts.adapter.pad_token_id)
    assert batch.pairs.view is not None
    pairs = zip(batch.pairs.chosen.tolist(), batch.pairs.view.tolist(), strict=True)
    places = dict(pairs)
    assert len(batch.targets.sizes) == 5
    assert places == {0: 3, 1: 4}


@pytest.mark.slow
def test_cached_references_have_the_same_losses(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    losses = []
    for reference in ("auto", "cached"):
        args = config(
            tmp_path / reference, loss=DPO, reference=reference, image_preference={}, max_steps=5
        )
        trainer = make_trainer(checkpoint("qwen2_vl"), image_rows(), args)
        trainer.train()
        losses.append([entry["loss"] for entry in log_of(trainer)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_text_and_images_in_one_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = config(
        tmp_path, loss=DPO, image_preference={}, per_device_train_batch_size=6, max_steps=1
    )
    trainer = make_trainer(checkpoint("qwen2_vl"), [*image_rows(4), *text_rows(2)], args)
    trainer.train()
    (entry,) = log_of(trainer)
    assert entry["multimodal/image_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert entry["text/image_loss"] == 0
    values = trainer.evaluate(rows_from_records(image_rows(2)))
    assert values["eval_image_loss"] > 0
    assert values["eval_loss"] > values["eval_image_loss"]


@pytest.mark.slow
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def run(name: str, **settings: Any) -> Any:
        args = resumable_config(
            tmp_path / name, loss_type=None, loss=DPO, image_preference={"view": "shuffle"}
        )
        args.max_steps = settings.get("max_steps", 4)
        trainer = make_trainer(checkpoint("qwen2_vl"), image_rows(), args)
        trainer.train(resume_from_checkpoint=settings.get("resume"))
        return trainer

    full = run("full")
    run("half", max_steps=2)
    resumed = run("half", resume=str(tmp_path / "half" / "checkpoint-2"))
    for name, value in state_of(full).items():
        assert torch.equal(value, state_of(resumed)[name]), name


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        ({}, {"rejected_images": [make_image(9)]}, "only used with view: column"),
        ({"image_preference": {"view": "column"}}, {}, "no rejected_images"),
        ({"image_preference": {}, "loss": "sft"}, {}, "has no pairs of responses"),
        (
            {"image_preference": {}, "tokens_per_micro_batch": 512},
            {},
            "does not count the tokens of other images",
        ),
        ({"image_preference": {"weight": -1.0}}, {}, "weight"),
        ({"image_preference": {"amount": 1.0}}, {}, "amount"),
        (
            {"image_preference": {"anchor": 1.0}, "loss": {"name": "simpo"}},
            {},
            "compares with the reference",
        ),
    ],
)
def test_refused_options(
    checkpoint: Checkpoint,
    tmp_path: Path,
    settings: dict[str, Any],
    changed: dict[str, Any],
    message: str,
) -> None:
    if "tokens_per_micro_batch" in settings:
        settings = {**settings, "per_device_train_batch_size": 8}

    def start() -> None:
        args = config(tmp_path, **{"loss": DPO, **settings})
        make_trainer(checkpoint("qwen2_vl"), image_rows(**changed), args)

    with pytest.raises((DataError, RecipeError, UniDPOError), match=message):
        start()


def test_contributions_are_those_of_the_pair(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """At the start, DPO contributes 1/2, with the image preference as without it."""
    args = config(tmp_path, loss=DPO, image_preference={"weight": 2.0})
    trainer = make_trainer(checkpoint("qwen2_vl"), image_rows(), args)
    group = trainer.train_dataset[0]
    batch = collate([group], pad_token_id=trainer.parts.adapter.pad_token_id)
    values = recorded_values(batch, trainer.preference_step(trainer.model, batch), "pair")
    assert float(values["contribution"]) == pytest.approx(0.5, abs=1e-6)
    assert float(values["dloss_dchosen"]) == pytest.approx(-0.5 - 2.0 * 0.5, abs=1e-6)


def test_a_replayed_loss_has_the_term(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = config(tmp_path, loss=DPO, image_preference={"weight": 2.0})
    described = configured_loss(args).describe()
    assert described["image_preference"] == {"weight": 2.0, "anchor": 0.0}
    assert "image_preference" not in configured_loss(config(tmp_path, loss=DPO)).describe()


def test_rows_without_another_image_are_counted(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = config(tmp_path, loss=DPO, image_preference={"view": "shuffle"})
    two = {**image_rows(1)[0], "images": [make_image(7), make_image(8)]}
    with caplog.at_level(logging.WARNING):
        make_trainer(checkpoint("qwen2_vl"), [*image_rows(2), two], args)
    assert "1 row is without image preference" in caplog.text
    make_trainer(checkpoint("qwen2_vl"), image_rows(2), args, eval_dataset=image_rows(1))
    with pytest.raises(DataError, match="no other row has other images"):
        make_trainer(checkpoint("qwen2_vl"), image_rows(1), args)
