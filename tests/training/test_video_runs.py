"""Runs on rows with videos: LoRA, cached features and references, interruptions, recipes."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import gray_frames, make_clip, make_image, write_video
from support.commands import run_command
from trainers import config, make_trainer, resumable_config, state_of

from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import UniDPOError

Checkpoint = Callable[[str], Path]

TYPES = [
    "qwen2_5_vl",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("qwen2_vl", "qwen3_vl", "qwen3_5", "llava_onevision", "internvl", "smolvlm")
    ),
]


def records(model_type: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"prompt": "What happens?", "videos": [make_clip(1, 4)], "chosen": "A red square",
         "rejected": "Blue"},
        {"prompt": "How many?", "videos": [make_clip(9, 4), make_clip(20, 4, (40, 72))],
         "chosen": "Two videos here", "rejected": "One"},
        {"prompt": "What is it?", "images": [make_image(4, (120, 30))], "chosen": "7",
         "rejected": "8."},
        {"prompt": "Write one word.", "chosen": "Hello", "rejected": "Two circle"},
        {"prompt": "Same?", "videos": [make_clip(7, 4)], "images": [make_image(3)],
         "chosen": "Yes", "rejected": "It is not"},
    ]  # fmt: skip
    return rows[:4] if model_type == "smolvlm" else rows


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("model_type", TYPES)
def test_a_lora_adapter_trains_with_checkpointing_and_both_caches(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    args = config(
        tmp_path / "run",
        loss_type="dpo",
        activation_checkpointing=True,
        reference="cached",
        feature_cache_gb=0.1,
        video_max_frames=4,
        max_steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=5,
    )
    rows = records(model_type)
    trainer = make_trainer(
        checkpoint(model_type), rows, args, peft_config=LoraOptions(r=2, alpha=4)
    )
    calls: list[Any] = []
    base: Any = trainer.parts.logp_model.model.get_base_model().model
    for name in ("get_image_features", "get_video_features"):
        if hasattr(base, name):
            setattr(base, name, _counted(getattr(base, name), calls))
    trainer.train()
    first, *_, last = losses(trainer)
    assert first == pytest.approx(0.6931, abs=1e-4)  # the policy starts as the reference
    assert last < first
    kinds = 1 if model_type in ("internvl", "smolvlm") else 2
    assert len(calls) == 2 * kinds  # once for the reference and once in the first of four steps
    assert trainer.parts.features is not None
    media = sum("videos" in record or "images" in record for record in rows)
    both = sum("videos" in record and "images" in record for record in rows)
    assert len(trainer.parts.features) == media + (both if kinds == 2 else 0)


def _counted(function: Any, calls: list[Any]) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "return_dict" in kwargs:  # not a call from the other method
            calls.append(kwargs)
        return function(*args, **kwargs)

    return call


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, rows = checkpoint("qwen2_5_vl"), records("qwen2_5_vl")
    uninterrupted = make_trainer(
        folder, rows, resumable_config(tmp_path / "whole", video_max_frames=4)
    )
    uninterrupted.train()
    first = resumable_config(tmp_path / "parts", video_max_frames=4, max_steps=2)
    make_trainer(folder, rows, first).train()
    second = resumable_config(tmp_path / "parts", video_max_frames=4)
    resumed = make_trainer(folder, rows, second)
    assert resumed.train(resume_from_checkpoint=True).global_step == 4
    before, after = state_of(uninterrupted), state_of(resumed)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_run_resumed_with_other_frames_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, rows = checkpoint("qwen2_5_vl"), records("qwen2_5_vl")
    first = resumable_config(tmp_path / "run", video_max_frames=4, max_steps=2)
    make_trainer(folder, rows, first).train()
    other = make_trainer(folder, rows, resumable_config(tmp_path / "run", video_max_frames=2))
    with pytest.raises(UniDPOError, match="video_max_frames"):
        other.train(resume_from_checkpoint=True)


@pytest.mark.slow
def test_a_recipe_trains_on_files_and_data_check_reports_them(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    clip = write_video(tmp_path / "clip.mp4", gray_frames(40))
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"id": f"r{n}", "prompt": "<video>\nWhat?", "videos": [clip.name],
                        "chosen": "yes", "rejected": "no"}) + "\n"
            for n in range(3)
        )
    )  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name_or_path: {checkpoint('qwen2_5_vl')}, dtype: float32}}\n"
        f"data: {{sources: [{{path: {tmp_path / 'rows.jsonl'}}}], video_max_frames: 4}}\n"
        "loss: {name: dpo}\n"
        f"train: {{output_dir: {tmp_path / 'out'}, use_cpu: true, max_steps: 1, report_to: none, "
        "dataloader_num_workers: 1}\n"
    )
    check = run_command("data", "check", str(recipe))
    assert check.exit_code == 0, check.output
    assert "distinct videos" in check.output
    assert "sampled frames" in check.output
    result = run_command("train", str(recipe))
    assert result.exit_code == 0, result.output
    assert "3 videos" in result.output
