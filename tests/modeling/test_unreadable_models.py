"""The errors of checkpoints that cannot be loaded name the cause and its remedy."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from builders import load_tiny

from unidpo_mm.errors import ModelError

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
