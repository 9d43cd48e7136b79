"""Training a LoRA adapter on quantized weights, for real, on the CPU (`make test-quantization`)."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import EVERY_IMAGE_TYPE, mixed_rows
from support.commands import run_command
from trainers import make_trainer, resumable_config, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.cache.keys import weights_fingerprint
from unidpo_mm.config import LoraOptions
from unidpo_mm.config.from_recipe import quantization_config
from unidpo_mm.config.sections import QuantizationOptions
from unidpo_mm.modeling.references.kinds import FrozenLora, LoraOff

pytestmark = pytest.mark.quantization

Checkpoint = Callable[[str], Path]

FORMATS: dict[str, QuantizationOptions] = {
    "nf4": QuantizationOptions(bits=4),
    "8 bits": QuantizationOptions(bits=8),
    "torchao": QuantizationOptions(bits=8, library="torchao"),
}


def trainer_of(
    base: Path, output: Path, name: str, *, lora: LoraOptions | None = None, **settings: Any
) -> UniDPOTrainer:
    quantization = quantization_config(FORMATS[name], "float32")
    defaults: dict[str, Any] = {"model_init_kwargs": {"quantization_config": quantization}}
    args = resumable_config(output, **{**defaults, **settings})
    model_type = json.loads((base / "config.json").read_text())["model_type"]
    rows = mixed_rows(images=model_type in EVERY_IMAGE_TYPE)
    return make_trainer(base, rows, args, peft_config=lora or LoraOptions(r=4))


def losses(trainer: UniDPOTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def is_quantized(module: torch.nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    owners = (type(module).__module__, type(weight).__module__)
    return any(owner.split(".")[0] in ("bitsandbytes", "torchao") for owner in owners)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl", "internvl"])
def test_a_lora_adapter_learns_on_quantized_weights(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, name: str
) -> None:
    trainer = trainer_of(checkpoint(model_type), tmp_path / "run", name, max_steps=8)
    names = [
        path
        for path, module in trainer.model.named_modules()
        if is_quantized(module) and path.endswith("base_layer")
    ]
    assert len(names) == 14  # seven linear layers in each of two decoder layers
    assert all("layers" in n and "vision" not in n and "visual" not in n for n in names)
    assert isinstance(trainer.parts.reference, LoraOff)
    trainer.train()
    # on a CPU, bitsandbytes multiplies 8-bit weights differently in training and evaluation mode
    tolerance = 1e-2 if name == "8 bits" else 1e-4
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=tolerance)
    assert min(losses(trainer)) < 0.5
    for output, options in (("exported", ()), ("merged", ("--merge",))):
        result = run_command("export", str(tmp_path / "run" / "checkpoint-8"),
                             "--output", str(tmp_path / output), *options)  # fmt: skip
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["nf4", "torchao"])
def test_a_run_on_quantized_weights_resumes_exactly(
    checkpoint: Checkpoint, tmp_path: Path, name: str
) -> None:
    trainer = trainer_of(checkpoint("llama"), tmp_path, name)
    trainer.train()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed = trainer_of(checkpoint("llama"), tmp_path, name)
    resumed.train(resume_from_checkpoint=True)
    left, right = (weights_fingerprint(state_of(run).items(), {}) for run in (trainer, resumed))
    assert left == right


def test_evaluation_does_not_change_4_bit_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """On CPUs with bfloat16 units, bitsandbytes would convert them."""
    trainer = trainer_of(checkpoint("llama"), tmp_path, "nf4", max_steps=1)
    trainer.train()
    weights = [m.base_layer.weight for m in trainer.model.modules() if hasattr(m, "base_layer")]
    before = [(weight.clone(), weight.quant_state.absmax.clone()) for weight in weights]
    assert len(before) == 14
    trainer.evaluate(mixed_rows(images=False))
    for weight, (packed, scales) in zip(weights, before, strict=True):
        assert torch.equal(weight, packed)
        assert torch.equal(weight.quant_state.absmax, scales)


@pytest.mark.parametrize("name", ["nf4", "torchao"])
def test_dora_on_quantized_weights_starts_at_its_reference(
    checkpoint: Checkpoint, tmp_path: Path, name: str
) -> None:
    trainer = trainer_of(checkpoint("llama"), tmp_path, name, lora=LoraOptions(r=4, dora=True))
    assert isinstance(trainer.parts.reference, FrozenLora)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-4)


def test_a_recipe_trains_on_weights_of_torchao(checkpoint: Checkpoint, tmp_path: Path) -> None:
    row = {"prompt": "What is it?", "chosen": "A red square", "rejected": "Blue"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name_or_path: {checkpoint('qwen2_vl')}, dtype: bfloat16, lora: {{r: 4}},\n"
        "  quantization: {bits: 8, library: torchao}}\n"
        f"data: {{sources: [{{path: {tmp_path / 'pairs.jsonl'}}}]}}\n"
        "loss: {name: dpo}\n"
        f"train: {{output_dir: {tmp_path / 'out'}, max_steps: 2, bf16: true, use_cpu: true,\n"
        "  activation_checkpointing: true, reference: cached, report_to: none}\n"
    )
    result = run_command("train", str(tmp_path / "recipe.yaml"))
    assert result.exit_code == 0, result.output
    result = run_command("export", str(tmp_path / "out"), "--output", str(tmp_path / "exported"))
    assert result.exit_code == 0, result.output
    assert "trained on 8-bit weights" in result.output
