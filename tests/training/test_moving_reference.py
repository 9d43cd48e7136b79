"""A reference that moves towards the policy (TR-DPO): values, resuming, refused combinations."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mixed_rows
from trainers import config, make_trainer, resumable_config, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.peft_models import active_adapter, adapter_tensors
from unidpo_mm.modeling.references.moving import REFERENCE_FILE, MovingLora

Checkpoint = Callable[[str], Path]


def trainer_of(base: Path, output: Path, *, lora: Any = None, **settings: Any) -> UniDPOTrainer:
    defaults: dict[str, Any] = {
        "save_steps": 1,
        "reference_sync_steps": 2,
    }
    args = resumable_config(output, **{**defaults, **settings})
    rows = mixed_rows(images=False)
    return make_trainer(base, rows, args, peft_config=lora or LoraOptions(r=4))


def weights(trainer: UniDPOTrainer, *, reference: bool) -> dict[str, torch.Tensor]:
    model: Any = trainer.model.model
    name = trainer.parts.reference.name if reference else active_adapter(model)
    return {
        key: t.detach().clone() for adapter, key, t in adapter_tensors(model) if adapter == name
    }


def losses(trainer: UniDPOTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def test_the_reference_becomes_the_policy_after_the_chosen_steps(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint("llama"), tmp_path, reference_sync_alpha=1.0)
    assert isinstance(trainer.parts.reference, MovingLora)
    trainer.train()
    # after steps 2 and 4 the reference is the policy, so the loss of step 3 is that of step 1
    first, second, third, _ = losses(trainer)
    assert first == pytest.approx(math.log(2), abs=1e-6)
    assert third == pytest.approx(math.log(2), abs=1e-6)
    assert second != pytest.approx(math.log(2), abs=1e-3)
    policy, reference = weights(trainer, reference=False), weights(trainer, reference=True)
    assert all(torch.equal(policy[key], reference[key]) for key in policy)
    fixed = trainer_of(checkpoint("llama"), tmp_path / "fixed", reference_sync_steps=None)
    fixed.train()
    assert losses(fixed)[2] != pytest.approx(math.log(2), abs=1e-3)


def test_a_smaller_share_averages_the_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = trainer_of(
        checkpoint("llama"), tmp_path, reference_sync_alpha=0.25, reference_sync_steps=3
    )
    start = weights(trainer, reference=True)
    trainer.train(resume_from_checkpoint=None)
    third = trainer_of(checkpoint("llama"), tmp_path, max_steps=3, reference_sync_alpha=0.25,
                       reference_sync_steps=3)  # fmt: skip
    shutil.rmtree(tmp_path / "checkpoint-4")
    third.train(resume_from_checkpoint=True)  # loads the policy of step 3
    policy = weights(third, reference=False)
    for key, tensor in weights(trainer, reference=True).items():
        expected = 0.75 * start[key] + 0.25 * policy[key]
        assert torch.allclose(tensor, expected, atol=1e-7), key


def test_a_moved_reference_resumes_exactly(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint("llama"), tmp_path)
    trainer.train()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = trainer_of(checkpoint("llama"), tmp_path)
    resumed.train(resume_from_checkpoint=True)  # from step 3, after the reference has moved
    left, right = state_of(trainer), state_of(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert losses(trainer)[3] == losses(resumed)[-1]
    # the control: a checkpoint without the reference is refused
    shutil.rmtree(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-3" / REFERENCE_FILE).unlink()
    (tmp_path / "checkpoint-3" / "manifest.json").unlink()
    again = trainer_of(checkpoint("llama"), tmp_path)
    with pytest.raises(ModelError, match=rf"has no {REFERENCE_FILE}"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"reference": "cached"}, "cannot be combined with reference 'cached'"),
        ({"reference": "lora_off"}, "cannot be combined with reference 'lora_off'"),
    ],
)
def test_fixed_references_cannot_move(
    checkpoint: Checkpoint, tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        trainer_of(checkpoint("llama"), tmp_path, **settings)


def test_full_training_has_no_reference_that_moves(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = config(tmp_path, loss_type="dpo", reference_sync_steps=2)
    with pytest.raises(ModelError, match="only a reference that is a copy of a LoRA adapter"):
        make_trainer(checkpoint("llama"), mixed_rows(images=False), args)
