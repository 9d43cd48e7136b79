"""The conformance check accepts correct adapters and finds a mistake of every kind."""

import dataclasses
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import EVERY_IMAGE_TYPE, family_name, make_image
from support.markdown_blocks import ROOT, blocks_of
from support.untested_types import build
from torch import Tensor
from trainers import config, make_trainer
from transformers import AutoConfig, GitConfig

from unidpo_mm import plugins
from unidpo_mm.adapter import AdapterFamily
from unidpo_mm.cli.model_table import model_types
from unidpo_mm.config import LoraOptions
from unidpo_mm.conformance import CHECKS
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.families import family_for
from unidpo_mm.plugins import FAMILIES, load_family
from unidpo_mm.records import EncodedGroup, ModelInputs
from unidpo_mm.testing import check_checkpoint, check_family

Checkpoint = Callable[[str], Path]

FAST = ("llava", "qwen2_vl", "internvl")
TYPES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in EVERY_IMAGE_TYPE
]
ROWS = [
    {"prompt": "What is it?", "images": [make_image(1)], "chosen": "A square", "rejected": "Blue"},
    {"prompt": "Write one word.", "chosen": "Hello", "rejected": "Two circle"},
]


@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_with_images_passes(checkpoint: Checkpoint, model_type: str) -> None:
    check_checkpoint(load_family(family_name(model_type)), checkpoint(model_type))


def test_check_family_builds_and_checks_the_types_of_a_family(tmp_path: Path) -> None:
    check_family(load_family("image_text"), tmp_path, ["internvl"])
    assert (tmp_path / "internvl" / "config.json").is_file()


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_text_families_pass(checkpoint: Checkpoint, model_type: str) -> None:
    check_checkpoint(load_family("text"), checkpoint(model_type))


def test_check_family_uses_the_default_type_of_a_family_that_lists_none(tmp_path: Path) -> None:
    check_family(load_family("text"), tmp_path)
    assert (tmp_path / "text" / "config.json").is_file()


def test_the_family_of_the_documentation_passes(tmp_path: Path) -> None:
    (text,) = [
        block.text
        for block in blocks_of(ROOT / "docs" / "families.md")
        if block.text.startswith("# my_family.py")
    ]
    (tmp_path / "my_family.py").write_text(text)
    check_family(load_family(str(tmp_path / "my_family.py")), tmp_path)


def test_the_family_with_images_of_the_documentation_serves_its_type_from_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = [
        block.text
        for block in blocks_of(ROOT / "docs" / "families.md")
        if block.text.startswith("# vip_llava.py")
    ]
    package = tmp_path / "my_models"
    package.mkdir()
    (package / "__init__.py").write_text("PLUGIN_API = 1\n")
    (package / "vip_llava.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    installed = plugins.entry_points
    point = EntryPoint("mine", "my_models", FAMILIES.group)
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [*installed(group=group), *([point] if group == FAMILIES.group else [])],
    )
    family = load_family("vip_llava")
    check_family(family, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path / "vipllava")
    assert family_for(config) is family
    assert ("vip_llava", "vipllava") in {(name, kind.name) for name, kind in model_types()}


# ---- a broken adapter per check ----


class Wrapped:
    """An adapter that does what the wrapped one does, except for what a subclass changes."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)


class LosesATensor(Wrapped):
    """It does not pass the sizes of images to the model."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = self.adapter.forward_inputs(inputs)
        return {name: value for name, value in passed.items() if name != "image_sizes"}


def with_image(group: EncodedGroup, **changes: Any) -> EncodedGroup:
    if not group.images.inputs:
        return group
    image = dataclasses.replace(group.images, **changes)
    return dataclasses.replace(group, media={"image": image})


class MixesTokensAndImages(Wrapped):
    """It returns a mask over images and tokens, which is not padded with the tokens."""

    def encode(self, row: Any) -> EncodedGroup:
        group = self.adapter.encode(row)
        mask = torch.ones(max(len(row.images), 1), group.prompt_ids.numel())
        return with_image(group, inputs={**group.images.inputs, "cross_attention_mask": mask})


class CountsImagesInsteadOfTiles(Wrapped):
    def encode(self, row: Any) -> EncodedGroup:
        return with_image(self.adapter.encode(row), entries=len(row.images))


class MarksNoImageTokens(Wrapped):
    """It sets all token types to 0, so images attend only to what precedes them."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.forward_inputs(inputs))
        passed["token_type_ids"] = torch.zeros_like(passed["token_type_ids"])
        return passed


class ChangesThePrompt(Wrapped):
    """It encodes a prompt that the processor would render differently."""

    def encode(self, row: Any) -> EncodedGroup:
        group = self.adapter.encode(row)
        ids = group.prompt_ids.clone()
        ids[-3] = ids[-4]
        return dataclasses.replace(group, prompt_ids=ids)


class BlanksImages(Wrapped):
    """It passes blank images to the model."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.forward_inputs(inputs))
        if "pixel_values" in passed:
            passed["pixel_values"] = torch.zeros_like(passed["pixel_values"])
        return passed


class BlanksVideos(Wrapped):
    """It passes blank frames to the model."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.forward_inputs(inputs))
        if "pixel_values_videos" in passed:
            passed["pixel_values_videos"] = torch.zeros_like(passed["pixel_values_videos"])
        return passed


class MistakesTheTimesOfFrames(Wrapped):
    """It passes other times of frames to the model."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.forward_inputs(inputs))
        if "second_per_grid_ts" in passed:
            passed["second_per_grid_ts"] = 3 * passed["second_per_grid_ts"]
        return passed


class ReversesSharedImages(Wrapped):
    """It loses the order of images that rows share."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.forward_inputs(inputs))
        if inputs.images.order is not None:
            passed["pixel_values"] = passed["pixel_values"].flip(0)
        return passed


class CountsPositionsThroughTheRow(Wrapped):
    """It counts the positions of a packed row as if it were a single response."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.forward_inputs(inputs))
        ids = passed["input_ids"]
        passed["position_ids"] = torch.arange(ids.shape[1]).expand_as(ids)
        return passed


class GeneratesWithoutMask(Wrapped):
    """It passes no attention mask, so padding counts as text."""

    def generation_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        passed = dict(self.adapter.generation_inputs(inputs))
        passed["attention_mask"] = torch.ones_like(passed["attention_mask"])
        return passed


BROKEN: dict[str, tuple[str, type[Wrapped]]] = {
    "tensors of the processor": ("mistral3", LosesATensor),
    "tensors of tokens and images": ("internvl", MixesTokensAndImages),
    "numbers of features": ("internvl", CountsImagesInsteadOfTiles),
    "results of the library": ("gemma3", MarksNoImageTokens),
    "results of the library, ids": ("internvl", ChangesThePrompt),
    "results of the library, text": ("llama", ChangesThePrompt),
    "results of the library, times": ("qwen2_5_vl", MistakesTheTimesOfFrames),
    "another image": ("gemma3", BlanksImages),
    "another image, video": ("qwen2_5_vl", BlanksVideos),
    "shared features": ("gemma3", ReversesSharedImages),
    "layouts": ("internvl", CountsPositionsThroughTheRow),
    "generation": ("internvl", GeneratesWithoutMask),
}


def broken(family: AdapterFamily, wrapper: type[Wrapped]) -> AdapterFamily:
    return dataclasses.replace(family, create=lambda *args: wrapper(family.create(*args)))


@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_adapter_fails_the_check(checkpoint: Checkpoint, check: str) -> None:
    model_type, wrapper = BROKEN[check]
    family = broken(load_family(family_name(model_type)), wrapper)
    with pytest.raises(ModelError) as error:
        check_checkpoint(family, checkpoint(model_type))
    places = {problem.where for problem in error.value.problems}
    assert f"conformance check '{check.partition(',')[0]}'" in places


def test_checks_with_the_same_error_are_reported_as_one_problem(checkpoint: Checkpoint) -> None:
    def create(processor: Any, model_config: Any, options: Any) -> Any:
        adapter: Any = load_family("llava").create(processor, model_config, options)
        adapter.processor.patch_size *= 2
        return adapter

    family = dataclasses.replace(load_family("llava"), create=create)
    with pytest.raises(ModelError) as error:
        check_checkpoint(family, checkpoint("llava"))
    counts, same = error.value.problems
    assert "image tokens, and the model returns" in counts.message
    assert same.message.startswith("ValueError: Image features and image tokens do not match")
    assert "(the same in 'another image', 'shared features'" in same.message


def test_a_family_with_wrong_parts_fails_the_check(checkpoint: Checkpoint) -> None:
    parts = {"vision_tower": ("model.vision_tower",), "projector": (), "language_model": ("",)}
    family = dataclasses.replace(load_family("image_text"), parts=parts)
    with pytest.raises(ModelError, match=r"'parts of the model': the weight model.multi_modal_pro"):
        check_checkpoint(family, checkpoint("internvl"))


def test_every_check_has_a_broken_adapter() -> None:
    names = {name.partition(",")[0] for name in BROKEN} | {"parts of the model"}
    assert names == {check.name for check in CHECKS}


# ---- types without an entry ----


@pytest.mark.parametrize(
    "model_type",
    ["vipllava", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deepseek_vl", "aria"))],
)
def test_a_type_without_an_entry_trains_if_it_passes(tmp_path: Path, model_type: str) -> None:
    folder = build(tmp_path / "model", model_type)
    check_checkpoint(load_family("image_text"), folder)
    for bf16 in (False, True):
        args = config(tmp_path / f"run{bf16}", loss_type="dpo", max_steps=1, bf16=bf16)
        trainer = make_trainer(folder, ROWS, args)
        assert trainer.parts.family.name == "image_text"
        trainer.train()


MISFITS = {
    "llava_onevision": ("image_text", "numbers of features"),  # its first key counts rows
    "paligemma": ("llava", "results of the library"),  # no token types
}
SETTINGS: dict[str, dict[str, bool]] = {
    "float32": {},
    "bf16": {"bf16": True},
    "lora": {"lora": True},
}


def for_every_type(folder: Path, family: str) -> str:
    """Write a module with a family that says that it serves every model type."""
    path = folder / "own_family.py"
    path.write_text(
        "from dataclasses import replace\n"
        f"from model_adapters.{family} import ADAPTER as BUILT_IN\n"
        "ADAPTER = replace(BUILT_IN, name='own_family', serves=lambda config: True)\n"
    )
    return str(path)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("llava_onevision", "float32"),
        ("llava_onevision", "lora"),
        ("paligemma", "bf16"),
        pytest.param("llava_onevision", "bf16", marks=pytest.mark.slow),
        pytest.param("paligemma", "float32", marks=pytest.mark.slow),
        pytest.param("paligemma", "lora", marks=pytest.mark.slow),
    ],
)
def test_a_family_that_does_not_fit_is_refused_before_training(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, name: str
) -> None:
    (family, check), settings = MISFITS[model_type], SETTINGS[name]
    adapter = for_every_type(tmp_path, family)
    args = config(tmp_path, loss_type="dpo", adapter=adapter, bf16=settings.get("bf16", False))
    peft_config = LoraOptions(r=2) if settings.get("lora") else None
    with pytest.raises(ModelError, match=f"conformance check '{check}': "):
        make_trainer(checkpoint(model_type), ROWS[:1], args, peft_config=peft_config).train()


def test_a_family_that_fits_another_type_is_accepted(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    adapter = for_every_type(tmp_path, "llava")
    args = config(tmp_path, loss_type="dpo", adapter=adapter, max_steps=1)
    make_trainer(checkpoint("mistral3"), ROWS, args).train()


def test_a_processor_without_a_tensor_for_the_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_adapters import _image_text_traits as traits

    folder = build(tmp_path / "model", "video_llava")
    args = config(tmp_path / "run", loss_type="dpo")
    with pytest.raises(ModelError, match="returns images under a name that the model does not"):
        make_trainer(folder, ROWS, args)
    monkeypatch.setattr(traits, "REASONS", {})
    with pytest.raises(
        ModelError, match="returns pixel_values_images for an image, and no pixel_v"
    ):
        make_trainer(folder, ROWS, args)


def test_a_model_without_an_image_token_is_not_served() -> None:
    with pytest.raises(ModelError, match="has no image token whose place image features take"):
        family_for(GitConfig())
