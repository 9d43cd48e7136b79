"""Tensors that full training would lose are named before it starts."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import mixed_rows
from safetensors.torch import load_file, save_file
from trainers import config, make_trainer
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.config import LoraOptions
from unidpo_mm.modeling.tensor_files import TensorFiles

Checkpoint = Callable[[str], Path]

HIDDEN = ["mtp.fc.weight", "mtp.norm.weight"]
"""Tensors of Qwen3.5 that its class in transformers ignores on purpose."""


def with_tensors(base: Path, folder: Path, names: list[str]) -> Path:
    """Copy a checkpoint and add tensors."""
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors") | {name: torch.ones(4) for name in names}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if "not loaded by" in r.message]


def test_tensors_that_full_training_would_lose_are_named_and_exported(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_tensors(checkpoint("qwen3_5"), tmp_path / "base", HIDDEN)
    args = config(tmp_path / "run", max_steps=1)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(folder, mixed_rows(images=True), args)
    assert warnings_of(caplog) == [
        f"2 tensors of '{folder}' (such as mtp.fc.weight) are not loaded by "
        "Qwen3_5ForConditionalGeneration: the output directory will not contain them, and "
        "unidpo-mm export copies them from the base model"
    ]
    trainer.train()
    trainer.save_final_model()
    assert not set(HIDDEN) & TensorFiles(str(tmp_path / "run")).shapes.keys()
    words = ["export", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    words += ["--base", str(folder)]
    assert CliRunner().invoke(build_app(words), words).exit_code == 0
    assert set(HIDDEN) < TensorFiles(str(tmp_path / "out")).shapes.keys()


@pytest.mark.parametrize("name", ["lm_head.bias", "model.vision_tower.extra.weight"])
def test_an_unexpected_tensor_is_named(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = with_tensors(checkpoint("llava"), tmp_path / "base", [name])
    with caplog.at_level(logging.WARNING):
        make_trainer(folder, mixed_rows(images=True), config(tmp_path / "run"))
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"1 tensor of '{folder}' (such as {name}) is not loaded by Llava")


def test_a_lora_adapter_loses_no_tensor(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_tensors(checkpoint("llava"), tmp_path / "base", ["lm_head.bias"])
    with caplog.at_level(logging.WARNING):
        make_trainer(
            folder, mixed_rows(images=True), config(tmp_path / "run"), peft_config=LoraOptions(r=2)
        )
        make_trainer(checkpoint("llava"), mixed_rows(images=True), config(tmp_path / "full"))
    assert warnings_of(caplog) == []
