"""LoRA adapters never change frozen parts, and targets without a match are errors."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import build_reference, load_tiny
from peft import IA3Config, LoraConfig
from torch import nn

from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import LogpModel
from unidpo_mm.modeling.lora_targets import part_of
from unidpo_mm.modeling.parts import add_lora, add_peft, count_parameters, lora_part_problems

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def loaded(checkpoint: Checkpoint) -> Callable[[str], LoadedModel]:
    models: dict[str, LoadedModel] = {}

    def find(model_type: str) -> LoadedModel:
        if model_type not in models:
            models[model_type] = load_tiny(checkpoint(model_type))
        tiny = models[model_type]
        return LoadedModel(copy.deepcopy(tiny.model), tiny.family, tiny.adapter)

    return find


def parts_that_train(model: nn.Module, loaded: LoadedModel) -> set[str]:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    return {part_of(name, loaded.family.parts) for name in names}


VISION = ["vision_tower", "projector"]


@pytest.mark.parametrize(
    ("model_type", "targets", "freeze", "expected"),
    [
        ("llava", ["q_proj", "v_proj"], None, {"language_model"}),
        ("llava", ["q_proj", "v_proj"], VISION, {"language_model"}),
        ("llava", ["q_proj", "v_proj"], ["vision_tower"], {"language_model"}),
        ("llava", ["q_proj", "v_proj"], ["language_model"], {"vision_tower"}),
        ("llava", ["q_proj", "v_proj"], [], {"language_model", "vision_tower"}),
        ("llava", "q_proj", None, {"language_model"}),
        ("llava", r".*\.q_proj", None, {"language_model"}),
        ("llava", "all-linear", None, {"language_model"}),
        ("llava", "all-linear", [], {"language_model", "vision_tower", "projector"}),
        ("llava", ["language_model", "projector"], None, {"language_model", "projector"}),
        ("llava", "vision_tower", None, {"vision_tower"}),
        ("qwen2_vl", "all-linear", None, {"language_model"}),
        ("qwen2_vl", "all-linear", ["vision_tower"], {"language_model", "projector"}),
        ("qwen2_vl", "all-linear", ["projector"], {"language_model", "vision_tower"}),
        ("qwen2_vl", ["proj", "q_proj"], [], {"language_model", "vision_tower"}),
        ("llama", "all-linear", None, {"language_model"}),
    ],
)
def test_a_lora_adapter_does_not_change_frozen_parts(
    loaded: Any, model_type: str, targets: Any, freeze: Any, expected: set[str]
) -> None:
    tiny = loaded(model_type)
    model = add_lora(tiny.model, tiny.family, LoraOptions(r=2, targets=targets), freeze)
    assert parts_that_train(model, tiny) == expected
    injected = [name for name, _ in model.named_parameters() if ".lora_A." in name]
    assert {part_of(name, tiny.family.parts) for name in injected} == expected


@pytest.mark.parametrize("biases", ["none", "all"])
def test_the_configuration_of_peft_is_not_changed(loaded: Any, biases: Any) -> None:
    tiny = loaded("llava")
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], bias=biases)
    before = copy.deepcopy(config.to_dict())
    model = add_peft(tiny.model, tiny.family, config)
    assert config.to_dict() == before
    assert parts_that_train(model, tiny) == {"language_model"}


def test_other_methods_and_exclusions_of_the_user_are_kept(loaded: Any) -> None:
    tiny = loaded("llava")
    ia3 = IA3Config(target_modules=["q_proj", "v_proj"], feedforward_modules=[])
    assert parts_that_train(add_peft(tiny.model, tiny.family, ia3), tiny) == {"language_model"}
    for exclude in (["v_proj"], r".*v_proj"):
        tiny = loaded("llava")
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], exclude_modules=exclude)
        model = add_peft(tiny.model, tiny.family, config)
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        assert all("q_proj" in name and "language_model" in name for name in names)


def test_targets_may_be_missing_if_peft_has_a_default(loaded: Any) -> None:
    tiny = loaded("llama")
    names = [
        n
        for n, p in add_peft(tiny.model, tiny.family, LoraConfig(r=2)).named_parameters()
        if p.requires_grad
    ]
    assert names
    assert all("q_proj" in name or "v_proj" in name for name in names)
    tiny = loaded("qwen2_vl")
    with pytest.raises(ModelError, match="PEFT has no default for the model type 'qwen2_vl'"):
        add_peft(tiny.model, tiny.family, LoraConfig(r=2))


def test_a_module_that_trains_in_full_may_only_be_frozen_by_default(loaded: Any) -> None:
    tiny = loaded("llava")
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["multi_modal_projector"])
    model = add_peft(tiny.model, tiny.family, config)
    assert parts_that_train(model, tiny) == {"language_model", "projector"}
    tiny = loaded("llava")
    with pytest.raises(ModelError, match=r"peft_config.modules_to_save: 'multi_modal_projector'"):
        add_peft(tiny.model, tiny.family, config, VISION)


@pytest.mark.parametrize(
    ("targets", "freeze", "message"),
    [
        (["q_proj", "v_porj"], None, r"no module of the model matches 'v_porj', .*'v_proj'\?"),
        ("langauge_model", None, r"matches 'langauge_model', did you mean 'language_model'\?"),
        (r".*\.nothing", None, r"no module of the model matches '\.\*\\\.nothing'"),
        ("(", None, "is not a valid regular expression"),
        (["q_proj", "fc1"], None, r"'fc1' matches only modules that do not train \(the family"),
        (["fc1"], ["vision_tower"], r"'fc1' matches only .*model.freeze contains vision_tower"),
        ("vision_tower", ["vision_tower"], r"'vision_tower' is adapted here and frozen by model"),
        (["norm"], None, "PEFT refuses it"),
        ([], None, "the list is empty"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(
    loaded: Any, targets: Any, freeze: Any, message: str
) -> None:
    tiny = loaded("llava")
    with pytest.raises(ModelError, match=rf"model.lora.targets: .*{message}"):
        add_lora(tiny.model, tiny.family, LoraOptions(targets=targets), freeze)


def test_all_wrong_names_are_reported_together(loaded: Any) -> None:
    tiny = loaded("llama")
    config = LoraConfig(target_modules=["a_proj", "b_proj"], modules_to_save=["lm_haed"])
    with pytest.raises(ModelError) as caught:
        add_peft(tiny.model, tiny.family, config)
    where = [problem.where for problem in caught.value.problems]
    assert where == ["peft_config.target_modules"] * 2 + ["peft_config.modules_to_save"]
    assert "did you mean 'lm_head'?" in str(caught.value)
    with pytest.raises(ModelError, match=r"a string is a regular expression.*\['q_proj'\]"):
        add_peft(tiny.model, tiny.family, LoraConfig(target_modules="q_proj"))


def test_parts_are_checked_before_weights_are_loaded(loaded: Any) -> None:
    family = loaded("llava").family
    projector = LoraOptions(modules_to_save=["projector"])
    assert not lora_part_problems(projector, family, None)
    (problem,) = lora_part_problems(projector, family, VISION)
    assert str(problem).startswith("model.lora.modules_to_save: 'projector' is adapted")
    (problem,) = lora_part_problems(LoraOptions(), family, ["vision"])
    assert "no part 'vision', did you mean 'vision_tower'?" in str(problem)


def test_the_table_counts_the_base_model_and_the_active_adapter(loaded: Any) -> None:
    tiny = loaded("llava")
    plain = {count.part: count.total for count in count_parameters(tiny.model, tiny.family)}
    settings = LoraOptions(r=2, modules_to_save=["projector"])
    model = add_lora(tiny.model, tiny.family, settings)
    added = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    for _ in range(2):
        counts = {count.part: count for count in count_parameters(model, tiny.family)}
        assert counts["projector"].total == counts["projector"].trainable == plain["projector"]
        assert counts["vision_tower"].total == plain["vision_tower"]
        assert counts["language_model"].total == plain["language_model"] + added
        assert counts["language_model"].trainable == added
        with torch.no_grad():  # a second adapter for the reference is not counted
            next(p for n, p in model.named_parameters() if ".lora_B." in n).add_(1)
        build_reference("auto", LogpModel(model), tiny.adapter)
