"""Saving and resuming: bit-equal runs, checkpoints that load without this package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import IMAGE_TYPES, batch_of, load_tiny, mixed_rows
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOConfig, UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError

Checkpoint = Callable[[str], Path]


def saving(output: Path, **settings: Any) -> UniDPOConfig:
    """Return settings with AdamW, a schedule, random weights and evaluations, which must resume."""
    return config(
        output,
        **{
            "optim": "adamw_torch",
            "lr_scheduler_type": "cosine",
            "learning_rate": 5e-3,
            "max_grad_norm": 1.0,
            "max_steps": 7,
            "save_strategy": "steps",
            "save_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "loss_kwargs": {"quality_weight": "permuted"},
            **settings,
        },
    )


def build(
    folder: Path, args: UniDPOConfig, *, lora: bool = False, model_type: str = "llava"
) -> UniDPOTrainer:
    rows = mixed_rows(images=model_type in IMAGE_TYPES)
    settings = LoraOptions(r=4, dropout=0.2, modules_to_save=["projector"]) if lora else None
    return make_trainer(folder, rows, args, peft_config=settings, eval_dataset=rows[:2])


@pytest.mark.parametrize(
    ("model_type", "lora"),
    [("llava", False), ("llava", True), ("qwen3", False), ("llava_onevision", False)],
)
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, lora: bool
) -> None:
    folder = checkpoint(model_type)
    kind: dict[str, Any] = {"lora": lora, "model_type": model_type}
    extra: dict[str, Any] = {"disable_dropout": not lora}
    straight = build(folder, saving(tmp_path / "straight", **extra), **kind)
    straight.train()
    expected = state_of(straight)

    def losses(trainer: UniDPOTrainer) -> list[tuple[int, float]]:
        return [(e["step"], e["loss"]) for e in trainer.state.log_history if "loss" in e]

    for step in (3, 6):
        resumed = build(folder, saving(tmp_path / f"resumed-{step}", **extra), **kind)
        resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{step}"))
        assert resumed.state.global_step == 7
        state = state_of(resumed)
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(value, state[name]), (step, name)
        assert losses(resumed) == losses(straight)


def test_the_comparison_detects_a_run_that_starts_from_scratch(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("llava")
    straight = build(folder, saving(tmp_path / "a"))
    straight.train()
    shorter = build(folder, saving(tmp_path / "b", max_steps=4))
    shorter.train()
    first, second = state_of(straight), state_of(shorter)
    assert any(not torch.equal(value, second[name]) for name, value in first.items())


def processor_of(folder: Path, model_type: str) -> Any:
    from transformers import AutoProcessor, AutoTokenizer

    kind = AutoProcessor if model_type in IMAGE_TYPES else AutoTokenizer
    return kind.from_pretrained(folder)


def assert_same_processor(first: Any, second: Any, model_type: str) -> None:
    assert first.chat_template == second.chat_template
    if model_type in IMAGE_TYPES:
        assert first.image_processor.to_dict() == second.image_processor.to_dict()
        first, second = first.tokenizer, second.tokenizer
    assert first.get_vocab() == second.get_vocab()


QUICK_TYPES = ("qwen3", "llava", "qwen2_vl", "qwen3_vl_moe")
"""Types with other classes of models, processors and layers; the others are slow."""


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name in QUICK_TYPES else pytest.mark.slow)
        for name in ("qwen3", *IMAGE_TYPES)
    ],
)
def test_every_checkpoint_loads_with_transformers_alone(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    import transformers

    folder = checkpoint(model_type)
    args = saving(tmp_path, max_steps=2, save_steps=1)
    trainer = build(folder, args, model_type=model_type)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    auto = getattr(transformers, trainer.parts.family.auto_class)
    for name in ("checkpoint-1", "checkpoint-2", "final"):
        model, info = auto.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"], name
        assert not info["unexpected_keys"], name
        assert model.config.model_type == model_type
        assert_same_processor(
            processor_of(folder, model_type), processor_of(tmp_path / name, model_type), model_type
        )
    trained, first = state_of(trainer), state_of(build(folder, args, model_type=model_type))
    loaded = model.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in trained.items())
    assert any(not torch.equal(value, first[key]) for key, value in trained.items())


@pytest.mark.parametrize("model_type", ["qwen3", "llava"])
def test_a_state_gathered_from_shards_is_saved_under_the_names_of_the_plain_model(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    """FSDP and DeepSpeed pass the state of the `LogpModel`, with its prefix."""
    from safetensors.torch import load_file

    trainer = build(checkpoint(model_type), saving(tmp_path), model_type=model_type)
    gathered = {name: value + 1 for name, value in trainer.model.state_dict().items()}
    trainer._save(str(tmp_path / "gathered"), state_dict=gathered)
    trainer.save_model(str(tmp_path / "own"))
    saved = load_file(tmp_path / "gathered" / "model.safetensors")
    written = load_file(tmp_path / "own" / "model.safetensors")
    assert saved.keys() == written.keys()
    assert all(torch.equal(value, written[name] + 1) for name, value in saved.items())


def test_a_lora_checkpoint_loads_with_peft_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    folder = checkpoint("llava")
    trainer = build(folder, saving(tmp_path, max_steps=3), lora=True)
    trainer.train()
    base = AutoModelForImageTextToText.from_pretrained(folder)
    model = PeftModel.from_pretrained(base, tmp_path / "checkpoint-3").eval()
    loaded = load_tiny(folder)
    batch = batch_of(loaded, mixed_rows(images=True))
    inputs = dict(loaded.adapter.forward_inputs(batch.inputs))
    with torch.no_grad():
        expected = trainer.model.model.eval()(**inputs).logits
        logits = model(**inputs).logits
        untrained = load_tiny(folder).model(**inputs).logits
    assert torch.equal(logits, expected)
    assert not torch.allclose(logits, untrained, atol=1e-3)
    assert_same_processor(
        processor_of(folder, "llava"), processor_of(tmp_path / "checkpoint-3", "llava"), "llava"
    )


def test_a_checkpoint_is_a_model_to_start_from(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first = build(checkpoint("llava"), saving(tmp_path / "a", max_steps=3))
    first.train()
    again = build(tmp_path / "a" / "checkpoint-3", saving(tmp_path / "b", max_steps=1))
    trained = state_of(first)
    assert all(torch.equal(value, trained[key]) for key, value in state_of(again).items())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_best_model_is_loaded_at_the_end(
    checkpoint: Checkpoint, tmp_path: Path, lora: bool
) -> None:
    args = saving(
        tmp_path,
        max_steps=4,
        save_steps=2,
        learning_rate=1e-2,
        per_device_train_batch_size=9,
        loss_kwargs=None,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # so that the earlier one is the best
    )
    trainer = build(checkpoint("llava"), args, lora=lora)
    trainer.train()
    losses = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    assert losses[1] < losses[0]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[0], rel=1e-5)


def test_resuming_from_another_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = build(checkpoint("llama"), saving(tmp_path), model_type="llama")
    with pytest.raises(ModelError, match="cannot be loaded"):
        trainer.train(resume_from_checkpoint=str(checkpoint("qwen3")))
