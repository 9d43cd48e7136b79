"""Training a LoRA adapter on quantized weights, for real, on the CPU (`make test-quantization`)."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import IMAGE_TYPES, mixed_rows
from support.commands import run_command
from trainers import make_trainer, resumable_config, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.modeling.references.kinds import FrozenLora, LoraOff

pytestmark = pytest.mark.quantization

Checkpoint = Callable[[str], Path]

BITS = {
    4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"},
    8: {"load_in_8bit": True},
}


def trainer_of(
    base: Path, output: Path, bits: int, *, lora: LoraOptions | None = None, **settings: Any
) -> UniDPOTrainer:
    quantization = {"quant_method": "bitsandbytes", **BITS[bits]}
    defaults: dict[str, Any] = {
        "model_init_kwargs": {"quantization_config": quantization},
    }
    args = resumable_config(output, **{**defaults, **settings})
    rows = mixed_rows(images=base.name.rstrip("0123456789") in IMAGE_TYPES)
    return make_trainer(base, rows, args, peft_config=lora or LoraOptions(r=4))


def losses(trainer: UniDPOTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_a_lora_adapter_learns_on_quantized_weights(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, bits: int
) -> None:
    trainer = trainer_of(checkpoint(model_type), tmp_path / "run", bits, max_steps=8)
    quantized = [m for m in trainer.model.modules() if type(m).__name__.startswith("Linear") and
                 type(m).__module__.startswith("bitsandbytes")]  # fmt: skip
    assert len(quantized) >= 14  # seven linear layers in each of two decoder layers
    names = [n for n, m in trainer.model.named_modules() if any(m is q for q in quantized)]
    assert all("layers" in n and "vision" not in n and "visual" not in n for n in names)
    assert isinstance(trainer.parts.reference, LoraOff)
    trainer.train()
    # on a CPU, bitsandbytes multiplies 8-bit weights differently in training and evaluation mode
    tolerance = {4: 1e-4, 8: 1e-2}[bits]
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=tolerance)
    assert min(losses(trainer)) < 0.5
    result = run_command("export", str(tmp_path / "run" / "checkpoint-8"),
                         "--output", str(tmp_path / "exported"))  # fmt: skip
    assert result.exit_code == 0, result.output


def test_a_run_on_quantized_weights_resumes_exactly(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint("llama"), tmp_path, 4)
    trainer.train()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = trainer_of(checkpoint("llama"), tmp_path, 4)
    resumed.train(resume_from_checkpoint=True)
    left, right = state_of(trainer), state_of(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_dora_on_quantized_weights_starts_at_its_reference(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint("llama"), tmp_path, 4, lora=LoraOptions(r=4, dora=True))
    assert isinstance(trainer.parts.reference, FrozenLora)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-4)
