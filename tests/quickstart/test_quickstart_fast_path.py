"""The demo says what packing saves, and measuring it changes nothing."""

from collections.abc import Callable
from pathlib import Path

import torch
from builders import mixed_rows
from trainers import config, make_trainer, state_of
from unidpo_mm_quickstart.fast_path import measure_saving


def test_the_saving_is_measured_on_both_layouts(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    trainer = make_trainer(checkpoint("llava"), mixed_rows(images=True), config(tmp_path))
    before = state_of(trainer)
    found = measure_saving(trainer)
    assert found is not None
    assert found.pairs >= 6
    assert 0 < found.shared_tokens < found.plain_tokens
    assert f"{found.shared_tokens} tokens instead of {found.plain_tokens}" in found.line()
    assert all(torch.equal(value, before[name]) for name, value in state_of(trainer).items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_plain_rows_save_nothing(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    args = config(tmp_path, layout="plain")
    trainer = make_trainer(checkpoint("llama"), mixed_rows(images=False), args)
    assert measure_saving(trainer) is None
