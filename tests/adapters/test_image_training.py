"""Every model type with images trains, saves all of its tensors and loads in plain transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import EVERY_IMAGE_TYPE, make_image
from safetensors import safe_open
from trainers import config, make_trainer

from unidpo_mm.config import LoraOptions
from unidpo_mm.export.export import ExportOptions, export_model
from unidpo_mm.export.reading import read_record

Checkpoint = Callable[[str], Path]

FAST = ("internvl", "gemma3", "minicpmv4_6", "glm4v")
"""Types that differ in what matters for training; the tests of the others are slow."""
TYPES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in EVERY_IMAGE_TYPE
]


def records(model_type: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"prompt": "What is it?", "images": [make_image(1)], "chosen": "A red square",
         "rejected": "Blue"},
        {"prompt": "How many?", "images": [make_image(2, (30, 56)), make_image(3, (70, 60))],
         "chosen": "Two images here", "rejected": "One"},
        {"prompt": "Where?", "images": [make_image(4, (120, 30))], "chosen": "7", "rejected": "8."},
        {"prompt": "Write one word.", "chosen": "Hello", "rejected": "Two circle"},
    ]  # fmt: skip
    return rows[:3] if model_type == "paligemma" else rows


def tensor_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as content:
            names |= set(content.keys())
    return names


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("model_type", TYPES)
def test_a_lora_adapter_trains_with_checkpointing_saves_and_merges(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    import transformers
    from peft import PeftModel

    folder = checkpoint(model_type)
    args = config(
        tmp_path / "run",
        loss_type="dpo",
        activation_checkpointing=True,
        max_steps=2,
        learning_rate=1e-3,
        per_device_train_batch_size=4,
    )
    trainer = make_trainer(folder, records(model_type), args, peft_config=LoraOptions(r=2, alpha=4))
    trainer.train()
    first, last = losses(trainer)
    assert first == pytest.approx(0.6931, abs=1e-4)  # the policy starts as the reference
    assert last < first
    trainer.save_model(str(tmp_path / "adapter"))
    base = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    PeftModel.from_pretrained(base, tmp_path / "adapter")
    saved = tensor_names(tmp_path / "adapter")
    assert len(saved) == sum(".lora_" in name for name, _ in base.named_parameters()) > 0
    options = ExportOptions(output=tmp_path / "merged", merge=True)
    merged = export_model(read_record(tmp_path / "adapter"), options)
    assert tensor_names(merged.directory) == tensor_names(folder)


@pytest.mark.parametrize("model_type", TYPES)
def test_all_text_weights_train_from_stored_features_and_no_tensor_is_lost(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    import transformers

    folder, saved = checkpoint(model_type), tmp_path / "saved"
    args = config(
        tmp_path / "run",
        loss_type="dpo",
        bf16=True,
        reference="cached",
        feature_cache_gb=0.1,
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
    )
    trainer = make_trainer(folder, records(model_type), args)
    trainer.train()
    assert trainer.parts.features is not None
    assert len(trainer.parts.features) == 3  # rows with images
    assert losses(trainer)[0] == pytest.approx(0.6931, abs=0.02)
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.save_model(str(saved))
    assert tensor_names(saved) == tensor_names(folder)
    loaded, report = transformers.AutoModelForImageTextToText.from_pretrained(
        saved, output_loading_info=True, dtype="float32"
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    before = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    frozen = {name for name, p in trainer.parts.logp_model.model.named_parameters()
              if not p.requires_grad}  # fmt: skip
    original, now = before.state_dict(), loaded.state_dict()
    changed = {name for name, value in now.items() if not torch.equal(value, original[name])}
    assert changed
    assert not changed & frozen
