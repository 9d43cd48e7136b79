"""The declarations of every model family."""

from collections.abc import Callable
from pathlib import Path

import pytest
from builders import MODEL_TYPES, family_name, load_tiny

from unidpo_mm.adapter import AdapterFamily, AdapterOptions
from unidpo_mm.errors import ModelError, RecipeError
from unidpo_mm.plugins import FAMILIES as FAMILY_KIND
from unidpo_mm.plugins import load_family, plugin_names, summary

Checkpoint = Callable[[str], Path]
FAMILIES: list[AdapterFamily] = [load_family(name) for name in plugin_names(FAMILY_KIND)]

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@every_family
def test_a_family_is_named_after_its_file_and_has_a_summary(family: AdapterFamily) -> None:
    assert load_family(family.name) is family
    assert summary(plugin_names(FAMILY_KIND)[family.name])


@every_family
def test_default_freeze_contains_parts_but_not_all(family: AdapterFamily) -> None:
    assert set(family.default_freeze) < set(family.parts)
    assert "language_model" in family.parts


@every_family
def test_a_tiny_checkpoint_is_built_offline_and_reproducible(
    family: AdapterFamily, tmp_path: Path
) -> None:
    import torch

    states = []
    for name in ("first", "second"):
        folder = family.tiny(tmp_path / name)
        states.append(load_tiny(folder).model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.model_types], ids=lambda f: f.name)
def test_a_tiny_checkpoint_is_built_for_every_model_type_of_a_family(
    family: AdapterFamily, tmp_path: Path
) -> None:
    for model_type in family.model_types:
        loaded = load_tiny(family.tiny(tmp_path / model_type, model_type=model_type))
        assert loaded.model.config.model_type == model_type
        assert loaded.family.name == family.name


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_part_exists_in_every_model_type(checkpoint: Checkpoint, model_type: str) -> None:
    loaded = load_tiny(checkpoint(model_type))
    names = [name for name, _ in loaded.model.named_parameters()]
    for part, prefixes in load_family(family_name(model_type)).parts.items():
        assert any(name.startswith(prefix) for name in names for prefix in prefixes), part


def test_the_error_of_an_unknown_family_suggests_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"unknown model family 'lava', did you mean 'llava'\?"):
        load_family("lava")


def test_a_configuration_without_an_image_token_is_refused(checkpoint: Checkpoint) -> None:
    from transformers import AutoConfig

    loaded = load_tiny(checkpoint("internvl"))
    config = AutoConfig.for_model("minicpmv4_6")  # its default is `None`
    with pytest.raises(ModelError, match=r"has no id of an image token\. Add image_token_id"):
        loaded.family.create(loaded.adapter.processor, config, AdapterOptions())
