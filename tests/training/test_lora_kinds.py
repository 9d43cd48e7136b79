"""Kinds of LoRA: what the run starts from, what it saves, and that it resumes exactly."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import batch_of, load_tiny, mixed_rows
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from trainers import make_trainer, resumable_config, state_of
from transformers import AutoModelForCausalLM

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.lora_kinds import TRAINED_FILE
from unidpo_mm.modeling.references.kinds import FrozenLora, LoraOff

Checkpoint = Callable[[str], Path]
LOG_2 = math.log(2)

STARTS = ("pissa", "pissa_niter_16", "olora")


def trainer_of(base: Any, output: Path, lora: Any, **settings: Any) -> UniDPOTrainer:
    args = resumable_config(output, **settings)
    return make_trainer(base, mixed_rows(images=False), args, peft_config=lora)


def logps(model: Any, base: Path) -> torch.Tensor:
    loaded = load_tiny(base)
    batch = batch_of(loaded, mixed_rows(images=False))
    with torch.no_grad():
        return compute_logps(LogpModel(model).eval(), loaded.adapter, batch)


def first_loss(trainer: UniDPOTrainer) -> float:
    return next(log["loss"] for log in trainer.state.log_history if "loss" in log)


@pytest.mark.parametrize(
    ("init", "rslora"),
    [
        ("pissa", False),
        ("pissa_niter_16", True),
        ("olora", False),
        pytest.param("pissa", True, marks=pytest.mark.slow),
        pytest.param("pissa_niter_16", False, marks=pytest.mark.slow),
        pytest.param("olora", True, marks=pytest.mark.slow),
    ],
)
def test_a_start_from_the_weights_is_saved_for_the_unchanged_base(
    checkpoint: Checkpoint, tmp_path: Path, init: str, rslora: bool
) -> None:
    base = checkpoint("llama")
    unchanged = logps(AutoModelForCausalLM.from_pretrained(base), base)
    lora = LoraOptions(r=4, alpha=8, init=init, rslora=rslora)
    trainer = trainer_of(base, tmp_path, lora)
    policy = trainer.model.model
    # the start is the base model, although the base model's weights have changed
    assert torch.allclose(logps(policy, base), unchanged, atol=1e-4)
    with policy.disable_adapter():
        assert not torch.allclose(logps(policy, base), unchanged, atol=1e-2)
    assert isinstance(trainer.parts.reference, FrozenLora)
    trainer.train()
    assert first_loss(trainer) == pytest.approx(LOG_2, abs=1e-4)
    trained = logps(policy, base)
    assert not torch.allclose(trained, unchanged, atol=1e-2)
    # what is saved
    saved = tmp_path / "checkpoint-4"
    settings = json.loads((saved / "adapter_config.json").read_text())
    assert (settings["r"], settings["init_lora_weights"]) == (8, True)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), saved)
    assert torch.allclose(logps(loaded, base), trained, atol=1e-4)
    # the control: the trained matrices themselves are wrong on the unchanged base
    native = tmp_path / "native"
    shutil.copytree(saved, native)
    (native / TRAINED_FILE).rename(native / "adapter_model.safetensors")
    (native / "adapter_config.json").write_text(json.dumps({**settings, "r": 4}))
    wrong = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), native)
    assert not torch.allclose(logps(wrong, base), trained, atol=1e-2)


@pytest.mark.parametrize("init", STARTS)
def test_a_start_from_the_weights_resumes_exactly(
    checkpoint: Checkpoint, tmp_path: Path, init: str
) -> None:
    base, lora = checkpoint("llama"), LoraOptions(r=4, init=init)
    trainer = trainer_of(base, tmp_path / "run", lora)
    trainer.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    resumed = trainer_of(base, tmp_path / "run", lora)
    resumed.train(resume_from_checkpoint=True)
    left, right = state_of(trainer), state_of(resumed)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_configuration_of_peft_is_saved_in_the_same_way(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("llama")
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    trainer = trainer_of(base, tmp_path, lora)
    trainer.train()
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "checkpoint-4"
    )
    assert torch.allclose(logps(loaded, base), logps(trainer.model.model, base), atol=1e-4)


def test_without_the_adapter_it_is_not_the_reference(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    lora = LoraOptions(r=4, init="pissa")
    with pytest.raises(ModelError, match=r"'pissa' changed the base model's weights"):
        trainer_of(checkpoint("llama"), tmp_path, lora, reference="lora_off")
    with pytest.raises(ModelError, match=r"cannot be combined with DoRA.*Use one of the two"):
        trainer_of(checkpoint("llama"), tmp_path, LoraOptions(r=4, init="olora", dora=True))


@pytest.mark.parametrize(
    ("lora", "names", "scaling"),
    [
        (LoraOptions(r=4, alpha=8), {"lora_A", "lora_B"}, 2.0),
        (LoraOptions(r=4, alpha=8, rslora=True), {"lora_A", "lora_B"}, 4.0),
        (LoraOptions(r=4, alpha=8, dora=True), {"lora_A", "lora_B", "lora_magnitude_vector"}, 2.0),
    ],
    ids=["lora", "rslora", "dora"],
)
def test_kinds_train_save_and_can_be_trained_further(
    checkpoint: Checkpoint, tmp_path: Path, lora: LoraOptions, names: set[str], scaling: float
) -> None:
    base = checkpoint("llama")
    trainer = trainer_of(base, tmp_path / "run", lora)
    layer = trainer.model.model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == scaling
    trainable = {n.split(".q_proj.")[1].split(".")[0] for n, p in trainer.model.named_parameters()
                 if p.requires_grad and ".q_proj." in n}  # fmt: skip
    assert trainable == names
    trainer.train()
    assert first_loss(trainer) == pytest.approx(LOG_2, abs=1e-5)
    assert isinstance(trainer.parts.reference, FrozenLora if lora.dora else LoraOff)
    trained = logps(trainer.model.model, base)
    saved = tmp_path / "run" / "checkpoint-4"
    assert not (saved / TRAINED_FILE).exists()
    keys = load_file(saved / "adapter_model.safetensors")
    assert {key.split(".q_proj.")[1].split(".")[0] for key in keys if ".q_proj." in key} == names
    further = trainer_of(str(saved), tmp_path / "further", None)
    assert torch.allclose(logps(further.model.model, base), trained, atol=1e-5)
    further.train()
    assert first_loss(further) == pytest.approx(LOG_2, abs=1e-5)
    assert isinstance(further.parts.reference, FrozenLora)


def test_a_saved_start_from_the_weights_is_trained_further_as_plain_lora(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("llama")
    trainer = trainer_of(base, tmp_path / "run", LoraOptions(r=4, init="pissa"))
    trainer.train()
    further = trainer_of(str(tmp_path / "run" / "checkpoint-4"), tmp_path / "further", None)
    expected = logps(trainer.model.model, base)
    assert torch.allclose(logps(further.model.model, base), expected, atol=1e-4)
    further.train()
    assert first_loss(further) == pytest.approx(LOG_2, abs=1e-4)
