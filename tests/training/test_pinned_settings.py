"""A run keeps the median of its training pairs when it resumes with other rows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import row
from trainers import config, make_trainer

from unidpo_mm.training.configured_loss import LOSS_FILE, configure_loss, pinned_settings

Checkpoint = Callable[[str], Path]


def rows_of(*scores: float) -> list:
    return [row(str(n), f"Question {n}", ("a", "b"), (s, 0.0)) for n, s in enumerate(scores)]


def test_a_resumed_run_keeps_its_original_tau_good(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, saving = checkpoint("llama"), {"save_strategy": "steps", "save_steps": 1}
    first = make_trainer(folder, rows_of(1.0, 2.0, 3.0), config(tmp_path, max_steps=1, **saving))
    first.train()
    kept = json.loads((tmp_path / "checkpoint-1" / LOSS_FILE).read_text())
    assert kept["by_source"]["data"]["tau_good"] == 2.0
    args = config(tmp_path, max_steps=2, allow_changes=["data"], **saving)
    other = make_trainer(folder, rows_of(1.0, 4.0, 5.0), args)
    assert other.parts.settings.by_source["data"]["tau_good"] == 4.0
    other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert other.parts.settings.by_source["data"]["tau_good"] == 2.0
    assert "tau_good would be 4.0 with the current rows; the run keeps the 2.0" in caplog.text


def test_a_checkpoint_without_the_file_or_of_another_loss_changes_nothing(tmp_path: Path) -> None:
    settings = configure_loss("uni_dpo", {}).with_medians(rows_of(1.0))
    assert pinned_settings(settings, tmp_path) is settings
    (tmp_path / LOSS_FILE).write_text('{"name": "dpo", "by_source": {"data": {"tau_good": 9}}}')
    assert pinned_settings(settings, tmp_path) is settings
    (tmp_path / LOSS_FILE).write_text("{")
    assert pinned_settings(settings, tmp_path) is settings
