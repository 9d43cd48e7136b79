"""A run without a progress bar prints its log, and no useless warnings."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import mixed_rows
from trainers import config, make_trainer

from unidpo_mm.config import LoraOptions


def test_a_run_without_a_bar_prints_its_log_and_resumes_without_a_warning(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = mixed_rows(images=False)
    options = {"disable_tqdm": True, "save_strategy": "steps", "logging_steps": 1}
    peft = LoraOptions(r=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        args = config(tmp_path, **options, save_steps=1, max_steps=1)
        make_trainer(checkpoint("llama"), rows, args, eval_dataset=rows, peft_config=peft).train()
        lines = capfd.readouterr().err.splitlines()
        assert [line for line in lines if line.startswith("step 1/1  loss ")], lines
        assert [line for line in lines if line.startswith("1 step done in ")], lines
        args = config(tmp_path, **options, save_steps=2, max_steps=2)
        trainer = make_trainer(checkpoint("llama"), rows, args, eval_dataset=rows, peft_config=peft)
        trainer.train(resume_from_checkpoint=True)
        trainer.evaluate()
    printed = capfd.readouterr().err
    assert "step 2/2  loss " in printed
    assert "step 2/2  held out:" in printed
    assert "do not match" not in printed + caplog.text
