"""A quantized base model: what a recipe passes to transformers, and what is refused.

The quantization itself runs in `make test-quantization`, which installs bitsandbytes and torchao.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from builders import family_name

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks import packages
from unidpo_mm.config.from_recipe import config_of
from unidpo_mm.errors import RecipeError
from unidpo_mm.modeling.load import ModelSource, load_weights
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]

RECIPE = """
model: {{name_or_path: {model}, dtype: bfloat16, quantization: {quantization}, {options}}}
data: {{sources: [{{path: pairs.jsonl}}]}}
train: {{use_cpu: true, report_to: none}}
"""
NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}

INT8 = {
    "quant_method": "torchao",
    "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}},
}


def recorded_quantizations(
    monkeypatch: pytest.MonkeyPatch, auto_class: Any
) -> list[dict[str, Any]]:
    """Load models without their quantization from now on; return the list that receives it."""
    load, calls = auto_class.from_pretrained, []

    def recorded(name: str, **kwargs: Any) -> Any:
        calls.append(kwargs.pop("quantization_config"))
        return load(name, **kwargs)

    monkeypatch.setattr(auto_class, "from_pretrained", recorded)
    return calls


def write(folder: Path, model: Path, quantization: str, options: str = "lora: {r: 4}") -> Path:
    (folder / "pairs.jsonl").write_text("{}\n")
    text = RECIPE.format(model=model, quantization=quantization, options=options)
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("{bits: 4}", NF4),
        ("{bits: 8}", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        (
            "{bits: 4, type: fp4, double: false}",
            {**NF4, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False},
        ),
        ("{bits: 8, library: torchao}", INT8),
    ],
)
@pytest.mark.parametrize("model_type", ["llava", "internvl"])
def test_the_base_is_loaded_with_these_weights(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    quantization: str,
    expected: dict[str, Any],
) -> None:
    """Tested up to the call of transformers: the head and the vision tower keep their format."""
    recipe = load_recipe(write(tmp_path, checkpoint(model_type), quantization), checks=())
    args = config_of(recipe)
    calls = recorded_quantizations(monkeypatch, transformers.AutoModelForImageTextToText)
    family = load_family(family_name(model_type))
    load_weights(ModelSource.of(recipe.model.name_or_path, args), family)
    (passed,) = calls
    is_torchao = expected is INT8
    skipped = passed.pop("modules_to_not_convert" if is_torchao else "llm_int8_skip_modules")
    assert passed == expected
    assert {"lm_head", "model.vision_tower", "model.multi_modal_projector"} <= set(skipped)
    assert not any(name.startswith("model.language_model") for name in skipped)
    if not is_torchao:
        settings = transformers.BitsAndBytesConfig.from_dict(passed)
        assert settings.load_in_4bit is (expected.get("load_in_4bit") or False)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "torchao", "quant_type": {}, "modules_to_not_convert": ["lm_head"]},
        {"load_in_8bit": True, "llm_int8_skip_modules": ["lm_head"]},
        {"quant_method": "gptq", "bits": 4},
    ],
    ids=["torchao", "bitsandbytes", "another method"],
)
def test_other_settings_of_init_kwargs_are_passed_on_unchanged(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    path = str(checkpoint("llama"))
    calls = recorded_quantizations(monkeypatch, transformers.AutoModelForCausalLM)
    init_kwargs = {"quantization_config": settings}
    load_weights(ModelSource(name_or_path=path, init_kwargs=init_kwargs), load_family("text"))
    assert calls == [settings]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("freeze: null", "quantized weights cannot be trained, and there is no LoRA adapter"),
        ("lora: {init: pissa}", "model.lora.init is 'pissa', which changes the weights"),
        (
            "lora: {r: 4}, init_kwargs: {quantization_config: {load_in_4bit: true}}",
            "model.init_kwargs.quantization_config is set as well",
        ),
    ],
)
def test_contradictions_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, options: str, problem: str
) -> None:
    path = write(tmp_path, checkpoint("llama"), "{bits: 4}", options)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, checks=(packages.check_packages,))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("library", "extra"), [("bitsandbytes", "quantization"), ("torchao", "torchao")]
)
def test_a_missing_package_is_reported_with_its_extra(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    extra: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == library else find(name))
    path = write(tmp_path, checkpoint("llama"), f"{{bits: 8, library: {library}}}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, checks=(packages.check_packages,))
    assert f"the package '{library}' is not installed" in str(caught.value)
    assert f"pip install 'unidpo-mm[{extra}]'" in str(caught.value)


def test_weights_of_torchao_with_4_bits_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = write(tmp_path, checkpoint("llama"), "{bits: 4, library: torchao}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, checks=(packages.check_packages,))
    assert "LoRA adapters cannot be trained on 4-bit weights of torchao" in str(caught.value)
    assert "Set bits to 8, or library to bitsandbytes" in str(caught.value)


def test_other_numbers_of_bits_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.quantization\.bits"):
        load_recipe(write(tmp_path, checkpoint("llama"), "{bits: 3}"), checks=())
