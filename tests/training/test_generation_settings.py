"""Full training saves models whose generation settings transformers calls invalid."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from builders import mixed_rows
from trainers import config, make_trainer
from transformers import GenerationConfig
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import ModelError
from unidpo_mm.training import generation_settings

Checkpoint = Callable[[str], Path]

VICUNA = {"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.9, "top_p": 0.6}

INVALID: tuple[dict[str, Any], ...] = (
    VICUNA,
    {"do_sample": False, "top_k": 5, "typical_p": 0.9, "min_p": 0.1},
    {"early_stopping": True, "length_penalty": 2.0, "num_beams": 1},
    {"output_scores": True, "return_dict_in_generate": False},
    {"cache_implementation": "static", "use_cache": False},
)


def with_settings(base: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """Copy a checkpoint and replace its generation settings."""
    shutil.copytree(base, folder)
    content = json.dumps({"transformers_version": "4.40.0", **settings})
    (folder / "generation_config.json").write_text(content)
    return folder


@pytest.mark.parametrize("settings", INVALID, ids=lambda settings: "-".join(settings))
def test_settings_without_effect_are_saved_as_in_the_base_model(
    checkpoint: Checkpoint, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = with_settings(checkpoint("llava"), tmp_path / "base", settings)
    args = config(tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=1)
    trainer = make_trainer(folder, mixed_rows(images=True), args)
    trainer.train()
    trainer.save_final_model()
    for directory in (tmp_path / "run" / "checkpoint-1", tmp_path / "run"):
        model: Any = transformers.AutoModelForImageTextToText.from_pretrained(directory)
        saved = model.generation_config
        kept = {name: getattr(saved, name) for name in settings if "token" not in name}
        assert kept == {name: value for name, value in settings.items() if "token" not in name}
        assert saved.pad_token_id == 0  # that of the tokenizer


def test_a_model_with_such_settings_is_exported(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = with_settings(checkpoint("llama"), tmp_path / "base", VICUNA)
    args = config(tmp_path / "run", max_steps=1)
    trainer = make_trainer(folder, mixed_rows(images=False), args)
    trainer.train()
    trainer.save_final_model()
    words = ["export", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    words += ["--base", str(folder)]
    assert CliRunner().invoke(build_app(words), words).exit_code == 0
    exported: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert exported.generation_config.temperature == VICUNA["temperature"]


def test_settings_that_could_not_be_saved_are_removed_before_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(generation_settings, "keep_settings", lambda settings: None)
    settings = GenerationConfig(temperature=0.9, top_p=0.6, max_new_tokens=7)
    with caplog.at_level(logging.WARNING, "unidpo_mm"):
        generation_settings.prepare_settings(settings)
    (warning,) = [r.message for r in caplog.records if r.name.startswith("unidpo_mm")]
    assert warning.endswith(": temperature, top_p")
    assert (settings.temperature, settings.top_p) == (None, None)
    assert settings.max_new_tokens == 7


def test_settings_that_transformers_never_saves_are_refused_before_training(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(checkpoint("llama"))
    model.generation_config.max_new_tokens = -5
    with pytest.raises(ModelError, match=r"cannot be saved \(`max_new_tokens` must be greater"):
        make_trainer(
            model,
            mixed_rows(images=False),
            config(tmp_path / "run"),
            processing_class=transformers.AutoTokenizer.from_pretrained(checkpoint("llama")),
        )
