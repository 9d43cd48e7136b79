"""The checkpoints that a run may resume from, allowed changes, and finished runs."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mixed_rows
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOConfig, UniDPOTrainer
from unidpo_mm.config import load_recipe
from unidpo_mm.errors import ModelError, RecipeError
from unidpo_mm.training.identity import HARMLESS, HONORED, compare_options
from unidpo_mm.training.output_directory import check_recipe_not_overwritten, exclusive
from unidpo_mm.training.run import finished_run, train_from_recipe

Checkpoint = Callable[[str], Path]

SAVING: dict[str, Any] = {
    "optim": "adamw_torch",
    "lr_scheduler_type": "linear",
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
}


@pytest.fixture(scope="module")
def two_steps(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output directory of a run that was killed after two of four steps."""
    folder = tmp_path_factory.mktemp("two-steps") / "out"
    args = config(folder, **SAVING)
    make_trainer(checkpoint("llama"), mixed_rows(images=False), args).train()
    for step in (3, 4):
        shutil.rmtree(folder / f"checkpoint-{step}")
    return folder


@pytest.fixture
def started(
    checkpoint: Checkpoint, two_steps: Path, tmp_path: Path
) -> Callable[..., UniDPOTrainer]:
    """Build trainers for an output directory with two of the four steps of a run."""
    shutil.copytree(two_steps, tmp_path / "out")

    def build(rows: Any = None, **settings: Any) -> UniDPOTrainer:
        args = config(tmp_path / "out", **{**SAVING, **settings})
        return make_trainer(checkpoint("llama"), rows or mixed_rows(images=False), args)

    return build


def test_every_option_is_classified(tmp_path: Path) -> None:
    names = {field.name for field in fields(UniDPOConfig)}
    assert not HARMLESS & HONORED
    assert names >= HARMLESS | HONORED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0.7}, "loss.beta not set -> 0.7"),
        ({"seed": 7}, "seed 42 -> 7"),
        ({"per_device_train_batch_size": 1}, "per_device_train_batch_size 2 -> 1"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps 1 -> 2"),
        ({"optim": "sgd"}, 'optim "adamw_torch" -> "sgd"'),
        ({"lr_scheduler_type": "cosine"}, 'lr_scheduler_type "linear" -> "cosine"'),
        ({"max_length": 60}, "max_length not set -> 60"),
    ],
)
def test_a_changed_option_is_refused_with_its_name(
    started: Callable[..., UniDPOTrainer], change: dict[str, Any], words: str
) -> None:
    trainer = started(**change)
    with pytest.raises(RecipeError) as caught:
        trainer.train(resume_from_checkpoint=True)
    name = next(iter(change)).replace("beta", "loss")
    assert words in str(caught.value)
    assert f"allow_changes=[{name}" in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda rows: rows[:-1], "row removed, the first was row 3"),
        (lambda rows: [*rows, rows[0]], "1 row added, the first is data.jsonl row"),
        (lambda rows: rows[::-1], "another order"),
    ],
    ids=["removed", "added", "reordered"],
)
def test_changed_data_is_refused_and_can_be_allowed(
    started: Callable[..., UniDPOTrainer], edit: Callable[[list], list], words: str
) -> None:
    rows = edit(mixed_rows(images=False))
    with pytest.raises(RecipeError, match=words):
        started(rows).train(resume_from_checkpoint=True)
    output = started(rows, allow_changes=["data"]).train(resume_from_checkpoint=True)
    assert output.global_step == 4


def test_another_model_under_the_same_name_is_refused(
    started: Callable[..., UniDPOTrainer], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    trainer = started()
    other = make_trainer(
        checkpoint("qwen3"),
        mixed_rows(images=False),
        config(tmp_path / "out", **SAVING),
    )
    with pytest.raises(RecipeError, match="model: the model is of another class"):
        other.train(resume_from_checkpoint=True)
    with torch.no_grad():
        next(trainer.model.parameters()).add_(1e-3)
    trainer.identity = trainer._describe()
    with pytest.raises(RecipeError, match="the initial weights of the model have changed"):
        trainer.train(resume_from_checkpoint=True)


def test_a_changed_learning_rate_and_weight_decay_take_effect(
    started: Callable[..., UniDPOTrainer], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = started(learning_rate=1e-2, weight_decay=0.0)
    trainer.train(resume_from_checkpoint=True)
    assert "changed since the checkpoint: learning_rate 0.001 -> 0.01" in caplog.text
    logs = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    # the linear schedule of four steps, the last two of them at the new rate
    assert logs == pytest.approx([1e-3, 0.75e-3, 0.5e-2, 0.25e-2])
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0}


def test_another_optimizer_starts_without_state_if_that_is_allowed(
    started: Callable[..., UniDPOTrainer], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = started(optim="sgd", allow_changes=["optim"])
    assert trainer.train(resume_from_checkpoint=True).global_step == 4
    assert "the optimizer starts without the state" in caplog.text
    assert type(trainer.optimizer.optimizer).__name__ == "SGD"


def test_changed_intervals_take_effect(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    started(save_steps=4, logging_steps=4).train(resume_from_checkpoint=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-4",
    ]


def test_a_finished_run_stays_as_it_is(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    first = started()
    first.train(resume_from_checkpoint=True)
    again = started()
    output = again.train(resume_from_checkpoint=True)
    assert output.global_step == 4
    expected = state_of(first)
    assert all(torch.equal(value, expected[name]) for name, value in state_of(again).items())


def test_a_run_that_starts_from_scratch_sets_old_checkpoints_aside(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    started(max_steps=1).train()
    out = tmp_path / "out"
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-1"]
    assert sorted(path.name for path in (out / "set-aside-1").iterdir()) == [
        "checkpoint-1",
        "checkpoint-2",
        "ledger",
    ]


def test_an_older_checkpoint_sets_the_newer_ones_aside(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    older = tmp_path / "out" / "checkpoint-1"
    assert started().train(resume_from_checkpoint=str(older)).global_step == 4
    assert (tmp_path / "out" / "set-aside-1" / "checkpoint-2").is_dir()


def test_a_checkpoint_without_optimizer_state_cannot_be_resumed(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    started(save_only_model=True, max_steps=1).train()
    with pytest.raises(RecipeError, match="it contains the model but no optimizer state"):
        started(save_only_model=True).train(resume_from_checkpoint=True)
    path = tmp_path / "out" / "checkpoint-1"
    with pytest.raises(RecipeError, match=r"Use it as model\.name_or_path"):
        started().train(resume_from_checkpoint=str(path))


def test_a_damaged_best_checkpoint_is_not_loaded_at_the_end(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    trainer = started()
    trainer.state.best_model_checkpoint = str(tmp_path / "out" / "checkpoint-2")
    (tmp_path / "out" / "checkpoint-2" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"'config.json' has 2 bytes"):
        trainer._load_best_model()


def test_only_one_process_may_write_into_an_output_directory(
    started: Callable[..., UniDPOTrainer], tmp_path: Path
) -> None:
    from filelock import FileLock

    other = FileLock(tmp_path / "out" / ".lock", is_singleton=False)
    with other, pytest.raises(RecipeError, match="another run is using"):
        started().train(resume_from_checkpoint=True)
    with exclusive(tmp_path / "out"), exclusive(tmp_path / "out"):
        assert started().train(resume_from_checkpoint=True).global_step == 4


def test_processes_may_change_if_an_optimizer_step_stays_the_same() -> None:
    def changes(size: int, accumulation: int) -> list[bool]:
        options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
        now = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        return [change.honored for change in compare_options(options, now, processes=(1, 2))]

    assert changes(2, 2) == [True, True]
    assert changes(2, 4) == [False]
    assert changes(1, 4) == [False, False]  # the same number of pairs, in other micro-batches


def test_a_finished_run_is_recognized_by_recipe_data_and_model(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.runs import write_run

    monkeypatch.chdir(tmp_path)
    recipe = write_run(tmp_path, checkpoint("llava"), rows=8)
    keys = ["train.max_steps=2", "train.eval_strategy=no", "data.eval_sources=[]"]
    assert finished_run(load_recipe(recipe, keys)) is None
    train_from_recipe(load_recipe(recipe, keys))
    assert "step 2 of 2" in str(finished_run(load_recipe(recipe, keys)))
    assert "step 2 of 2" in str(finished_run(load_recipe(recipe, [*keys, "train.save_steps=9"])))
    longer = load_recipe(recipe, [*keys, "train.max_steps=3"])
    assert finished_run(longer) is None
    assert finished_run(load_recipe(recipe, [*keys, "run.resume=never"])) is None
    pairs = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text(pairs + "\n" + pairs.splitlines()[0])
    assert finished_run(load_recipe(recipe, keys)) is None
    with pytest.raises(RecipeError, match="row"):
        train_from_recipe(load_recipe(recipe, keys))
    (tmp_path / "out" / "model.safetensors").write_bytes(b"")
    assert finished_run(load_recipe(recipe, keys)) is None
    record = json.loads((tmp_path / "out" / "identity.json").read_text())
    assert record["options"]["per_device_train_batch_size"] == 2
    assert "hub_token" not in record["options"]


@pytest.mark.parametrize(
    "loss",
    ["gamma_po", *(pytest.param(n, marks=pytest.mark.slow) for n in ("beta_dpo", "alpha_dpo"))],
)
def test_the_state_of_a_loss_is_resumed(checkpoint: Checkpoint, tmp_path: Path, loss: str) -> None:
    def build(**settings: Any) -> UniDPOTrainer:
        args = config(tmp_path / "out", **{**SAVING, "loss_type": loss, **settings})
        return make_trainer(checkpoint("llama"), mixed_rows(images=False) * 2, args)

    straight = build()
    straight.train()
    expected = state_of(straight)
    resumed = build()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert resumed.parts.settings.state == straight.parts.settings.state
    assert straight.parts.settings.state != type(straight.parts.settings.state)()
    assert all(torch.equal(value, expected[name]) for name, value in state_of(resumed).items())


def test_a_checkpoint_beyond_the_last_step_is_refused(
    started: Callable[..., UniDPOTrainer],
) -> None:
    with pytest.raises(RecipeError, match="the checkpoint is at step 2"):
        started(max_steps=1).train(resume_from_checkpoint=True)


def small_run(checkpoint: Checkpoint, folder: Path) -> tuple[Path, list[str]]:
    from support.runs import write_run

    recipe = write_run(folder, checkpoint("llava"), rows=8)
    return recipe, ["train.max_steps=1", "train.eval_strategy=no", "data.eval_sources=[]"]


def test_a_run_with_another_model_or_data_is_not_finished(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, keys = small_run(checkpoint, tmp_path)
    train_from_recipe(load_recipe(recipe, keys))
    assert finished_run(load_recipe(recipe, keys)) is not None
    for change in ("model.dtype=bfloat16", "data.sources.0.path=held_out.jsonl"):
        changed = load_recipe(recipe, [*keys, change])
        assert finished_run(changed) is None
        with pytest.raises(RecipeError, match="belongs to another run"):
            train_from_recipe(changed)


def test_the_recorded_recipe_does_not_overwrite_the_recipe(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    recipe, keys = small_run(checkpoint, tmp_path)
    here = load_recipe(recipe, [*keys, f"train.output_dir={tmp_path}"])
    with pytest.raises(RecipeError, match="would overwrite the recipe"):
        check_recipe_not_overwritten(recipe, here)
    check_recipe_not_overwritten(
        recipe, load_recipe(recipe, [*keys, f"train.output_dir={tmp_path / 'out'}"])
    )
    (tmp_path / "run.json").write_text("{}")  # the recipe is the record of a run
    check_recipe_not_overwritten(recipe, here)


def test_allowing_unknown_names_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    recipe, keys = small_run(checkpoint, tmp_path)
    loaded = load_recipe(recipe, [*keys, "run.allow_changes=[data,trian.seed]"])
    with pytest.raises(RecipeError, match=r"'trian.seed', did you mean 'train.seed'"):
        train_from_recipe(loaded)
