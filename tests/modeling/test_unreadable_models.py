"""The errors of checkpoints that cannot be loaded name the cause and its remedy."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from builders import load_tiny
from safetensors.torch import load_file, save_file

from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.load import reload_weights

Checkpoint = Callable[[str], Path]

PACKAGES = {
    "Package `num2words` is required to run SmolVLM processor. Install it with "
    "`pip install num2words`.": "num2words",
    "\nTimmWrapperModel requires the timm library but it was not found in your environment. You "
    "can install it with pip:\n`pip install timm`. Please note": "timm",
    "This modeling file requires the following packages that were not found in your environment: "
    "einops, flash_attn. Run `pip install einops flash_attn`": "einops flash_attn",
}


@pytest.mark.parametrize("message", PACKAGES)
@pytest.mark.parametrize("loader", ["AutoConfig", "AutoProcessor", "AutoModelForImageTextToText"])
def test_a_missing_package_is_named(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, loader: str, message: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ImportError(message)

    folder = checkpoint("llava")
    monkeypatch.setattr(getattr(transformers, loader), "from_pretrained", refuse)
    with pytest.raises(ModelError) as error:
        load_tiny(folder)
    (problem,) = error.value.problems
    expected = f"needs a Python package that is not installed ({PACKAGES[message]})"
    assert problem.message == f"'{folder}' {expected}"
    assert problem.remedy == f"Run pip install {PACKAGES[message]}"


def test_smolvlm_without_its_package_is_refused_with_the_command(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.models.smolvlm.processing_smolvlm as processing

    folder = checkpoint("smolvlm")
    monkeypatch.setattr(processing, "num2words", None)
    with pytest.raises(
        ModelError, match=r"not installed \(num2words\)\. Run pip install num2words"
    ):
        load_tiny(folder)


def test_a_missing_module_of_custom_code_is_named(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        importlib.import_module("absent_package.layers")

    folder = checkpoint("llava")
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"Run pip install absent_package\."):
        load_tiny(folder)


def test_a_checkpoint_with_its_own_code_is_refused_with_the_option(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    settings = {"model_type": "custom_code", "auto_map": auto_map}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        ModelError, match=r"needs code of its checkpoint.*set model.trust_remote_code"
    ):
        load_tiny(tmp_path)


@pytest.mark.parametrize("model_type", ["llava", "llama", "qwen3_vl_moe"])
def test_a_tensor_of_a_wrong_shape_is_named_with_both_shapes(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint(model_type), folder)
    model = load_tiny(folder).model
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.0.self_attn.o_proj" in name)
    rows, columns = tensors[name].shape
    tensors[name] = torch.zeros(rows, columns - 4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for load in (lambda: load_tiny(folder), lambda: reload_weights(model, folder)):
        with pytest.raises(ModelError) as error:
            load()
        message = error.value.problems[0].message
        assert "1 tensor has another shape than the configuration says, such as " in message
        shapes = f"[{rows}, {columns - 4}] in the file and [{rows}, {columns}] in the model"
        assert f"layers.0.self_attn.o_proj.weight: {shapes}" in message
        assert "ignore_mismatched_sizes" not in message
