"""The quick-start measures the time that packing saves, without changing the model."""

from collections.abc import Callable
from pathlib import Path

import torch
from builders import mixed_rows
from trainers import config, make_trainer, state_of
from unidpo_mm_quickstart.fast_path import measure_saving


def test_the_saving_is_measured_in_both_layouts(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    trainer = make_trainer(checkpoint("llava"), mixed_rows(images=True), config(tmp_path))
    before = state_of(trainer)
    saving = measure_saving(trainer)
    assert saving is not None
    assert saving.pairs >= 6
    assert 0 < saving.shared_tokens < saving.plain_tokens
    assert f"{saving.shared_tokens} tokens instead of {saving.plain_tokens}" in saving.line()
    assert all(torch.equal(value, before[name]) for name, value in state_of(trainer).items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_the_plain_layout_has_no_saving(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    args = config(tmp_path, layout="plain")
    trainer = make_trainer(checkpoint("llama"), mixed_rows(images=False), args)
    assert measure_saving(trainer) is None
