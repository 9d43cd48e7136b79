"""Freezing, LoRA adapters, parts, dropout, and checkpointing outside of frozen towers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import IMAGE_TYPES, MODEL_TYPES, batch_of, family_name, load_tiny, mixed_rows
from torch import nn

from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import AdapterError, ModelError
from unidpo_mm.modeling.activation_memory import enable_checkpointing
from unidpo_mm.modeling.families import family_for
from unidpo_mm.modeling.load import ModelSource, load_model
from unidpo_mm.modeling.logp_model import LogpModel, base_and_head, compute_logps
from unidpo_mm.modeling.parts import (
    add_lora,
    count_parameters,
    disable_dropout,
    freeze_parts,
    part_of,
)
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


# ---- loading ----


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_family_is_detected_from_the_model_type(
    checkpoint: Checkpoint, model_type: str
) -> None:
    assert load_tiny(checkpoint(model_type)).family.name == family_name(model_type)


@pytest.mark.parametrize("model_type", ["vit", "bert", "t5", "bart", "whisper"])
def test_the_error_of_an_unsupported_model_type_names_it(model_type: str) -> None:
    from transformers import AutoConfig

    with pytest.raises(ModelError, match=rf"no model family serves the model type '{model_type}'"):
        family_for(AutoConfig.for_model(model_type))


def test_the_error_of_a_directory_without_checkpoint_names_it(tmp_path: Path) -> None:
    from unidpo_mm.adapter import AdapterOptions

    with pytest.raises(ModelError, match=r"cannot be loaded .*Use a directory written by save_pre"):
        load_model(ModelSource(name_or_path=str(tmp_path)), AdapterOptions())


def test_an_unknown_number_format_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"'float8' is not a number format.*bfloat16"):
        load_tiny(checkpoint("llama"), dtype="float8")


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)]
)
def test_weights_have_the_requested_dtype(
    checkpoint: Checkpoint, dtype: str, expected: torch.dtype
) -> None:
    model = load_tiny(checkpoint("llava"), dtype=dtype).model
    assert {p.dtype for p in model.parameters()} == {expected}


def test_a_family_with_images_refuses_a_bare_tokenizer(checkpoint: Checkpoint) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from unidpo_mm.adapter import AdapterOptions
    from unidpo_mm.modeling.load import load_adapter

    folder = checkpoint("llava")
    with pytest.raises(ModelError, match="needs a processor"):
        load_adapter(
            ModelSource(name_or_path=str(folder)),
            AdapterOptions(),
            config=AutoConfig.from_pretrained(folder),
            family=load_family("llava"),
            processor=AutoTokenizer.from_pretrained(folder),
        )


# ---- parts and freezing ----


def test_the_longest_prefix_determines_the_part() -> None:
    parts = {"a": ("model.a",), "inner": ("model.a.b",), "head": ("lm_head",)}
    assert part_of("model.a.weight", parts) == "a"
    assert part_of("model.a.b.weight", parts) == "inner"
    assert part_of("model.ab.weight", parts) == "other"
    assert part_of("base_model.model.lm_head.weight", parts) == "head"
    assert part_of("anything", {"all": ("",)}) == "all"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_parameter_belongs_to_a_part_of_its_family(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    counts = {count.part: count for count in count_parameters(loaded.model, loaded.family)}
    assert "other" not in counts
    assert set(counts) == set(loaded.family.parts)
    assert sum(c.total for c in counts.values()) == sum(
        p.numel() for p in loaded.model.parameters()
    )


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
@pytest.mark.parametrize("freeze", [None, [], ["vision_tower"], ["language_model", "projector"]])
def test_freezing_keeps_exactly_the_other_parts_trainable(
    checkpoint: Checkpoint, model_type: str, freeze: list[str] | None
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    frozen = freeze_parts(loaded.model, loaded.family, freeze)
    assert list(frozen) == (["vision_tower", "projector"] if freeze is None else freeze)
    for count in count_parameters(loaded.model, loaded.family):
        assert count.trainable == (0 if count.part in frozen else count.total), count.part


def test_the_error_of_an_unknown_part_suggests_the_nearest_name(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"))
    with pytest.raises(ModelError, match=r"no part 'vision_towr', did you mean 'vision_tower'\?"):
        freeze_parts(loaded.model, loaded.family, ["vision_towr"])


def test_freezing_everything_is_refused(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    with pytest.raises(ModelError, match="every part of the model is frozen"):
        freeze_parts(loaded.model, loaded.family, ["language_model"])


# ---- LoRA ----


def test_a_lora_adapter_on_a_part_adapts_its_linear_layers_but_not_the_head(
    checkpoint: Checkpoint,
) -> None:
    loaded = load_tiny(checkpoint("llava"))
    linear = [
        name
        for name, module in loaded.model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("model.language_model.")
    ]
    model = add_lora(loaded.model, loaded.family, LoraOptions(r=4, alpha=8))
    names = trainable(model)
    assert len(names) == 2 * len(linear) > 0
    assert all(".lora_" in name and "language_model" in name for name in names)
    counts = {c.part: c.trainable for c in count_parameters(model, loaded.family)}
    assert counts["vision_tower"] == counts["projector"] == 0 < counts["language_model"]


def test_a_lora_adapter_accepts_module_names_as_peft_does(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    model = add_lora(loaded.model, loaded.family, LoraOptions(targets=["q_proj", "v_proj"]))
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trainable(model)} == {
        "q_proj",
        "v_proj",
    }


def test_modules_to_save_train_in_full(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"))
    settings = LoraOptions(modules_to_save=["projector"])
    model = add_lora(loaded.model, loaded.family, settings)
    saved = [name for name in trainable(model) if ".lora_" not in name]
    assert saved
    assert all("multi_modal_projector.modules_to_save" in name for name in saved)
    counts = {c.part: c.trainable for c in count_parameters(model, loaded.family)}
    assert counts["projector"] > 0


def test_a_new_lora_adapter_changes_nothing(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"))
    batch = batch_of(loaded, mixed_rows(images=True))
    with torch.no_grad():
        before = compute_logps(LogpModel(loaded.model).eval(), loaded.adapter, batch)
        model = add_lora(loaded.model, loaded.family, LoraOptions())
        after = compute_logps(LogpModel(model).eval(), loaded.adapter, batch)
    assert torch.equal(before, after)


# ---- dropout ----


def test_training_mode_is_deterministic_without_dropout(tmp_path: Path) -> None:
    load_family("text").tiny(
        tmp_path, model_type="gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3
    )
    loaded = load_tiny(tmp_path)
    batch = batch_of(loaded, mixed_rows(images=False))
    logp_model = LogpModel(loaded.model).train()

    def twice() -> list[torch.Tensor]:
        with torch.no_grad():
            return [compute_logps(logp_model, loaded.adapter, batch) for _ in range(2)]

    assert not torch.equal(*twice())  # with dropout
    disable_dropout(logp_model)
    assert torch.equal(*twice())


def test_disable_dropout_includes_attention_dropout(tmp_path: Path) -> None:
    load_family("text").tiny(tmp_path, model_type="llama", attention_dropout=0.5)
    loaded = load_tiny(tmp_path)
    batch = batch_of(loaded, mixed_rows(images=False))
    logp_model = LogpModel(loaded.model).train()
    with torch.no_grad():
        noisy = [compute_logps(logp_model, loaded.adapter, batch) for _ in range(2)]
        disable_dropout(logp_model)
        still = [compute_logps(logp_model, loaded.adapter, batch) for _ in range(2)]
    assert not torch.equal(*noisy)
    assert torch.equal(*still)


def test_disable_dropout_includes_stochastic_depth() -> None:
    class DropPath(torch.nn.Module):
        drop_prob = 0.0

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden * (torch.rand(len(hidden), 1) >= self.drop_prob)

    layer = DropPath()
    layer.drop_prob = 0.5
    disable_dropout(torch.nn.Sequential(layer))
    assert torch.equal(layer(torch.ones(64, 1)), torch.ones(64, 1))


# ---- LogpModel ----


def test_a_model_without_a_head_is_refused() -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        "llama", hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, vocab_size=16,
    )  # fmt: skip
    with pytest.raises(ModelError, match="no language-model head"):
        base_and_head(AutoModel.from_config(config))


def test_inputs_that_a_model_would_silently_ignore_are_refused(
    checkpoint: Checkpoint,
) -> None:
    loaded = load_tiny(checkpoint("llama"))
    batch = batch_of(loaded, mixed_rows(images=False))
    inputs = {**loaded.adapter.forward_inputs(batch.inputs), "pixel_values": torch.zeros(1)}
    with pytest.raises(AdapterError, match=r"passes pixel_values, which .*forward\(\) does"):
        LogpModel(loaded.model)(
            inputs, batch.targets.row, batch.targets.position, batch.targets.ids
        )


def test_positions_are_not_passed_to_models_without_them(tmp_path: Path) -> None:
    load_family("text").tiny(tmp_path, model_type="bloom")
    loaded = load_tiny(tmp_path)
    batch = batch_of(loaded, mixed_rows(images=False))
    assert "position_ids" in loaded.adapter.forward_inputs(batch.inputs)
    logps = compute_logps(LogpModel(loaded.model).eval(), loaded.adapter, batch)
    assert logps.isfinite().all()


# ---- checkpointing ----


def layers_that_checkpoint(model: Any) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if getattr(module, "gradient_checkpointing", False)
    }


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def layers_of(model: Any, part: str) -> dict[str, Any]:
    """Return the transformer layers of a tower or of the decoder by name."""
    patterns = {
        "tower": r"(vision_tower\..*layers|visual\.blocks)\.\d+$",
        "decoder": r"language_model\.(.*\.)?layers\.\d+$",
    }
    pattern = re.compile(patterns[part])
    return {name: m for name, m in model.named_modules() if pattern.search(name)}


def prepared(folder: Path, kind: str) -> Any:
    """Return (loaded, model) with a frozen tower, with or without a LoRA adapter."""
    loaded = load_tiny(folder)
    if kind == "lora":
        return loaded, add_lora(loaded.model, loaded.family, LoraOptions(r=2))
    freeze_parts(loaded.model, loaded.family, ["vision_tower"] if kind == "tower" else None)
    return loaded, loaded.model


def backward(loaded: Any, model: Any) -> dict[str, torch.Tensor]:
    logp_model = LogpModel(model).train()
    batch = batch_of(loaded, mixed_rows(images=True))
    compute_logps(logp_model, loaded.adapter, batch).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["freeze", "tower", "lora"])
@pytest.mark.parametrize("model_type", IMAGE_TYPES)
def test_checkpointing_applies_to_the_decoder_and_not_to_a_frozen_tower(
    checkpoint: Checkpoint, model_type: str, kind: str
) -> None:
    loaded, model = prepared(checkpoint(model_type), kind)
    enable_checkpointing(model)
    names = layers_that_checkpoint(model.train())
    tower, decoder = layers_of(model, "tower"), layers_of(model, "decoder")
    assert names & set(decoder) == set(list(decoder)[:-1])  # without the last one
    assert not set(tower) & names
    outputs: list[Any] = []
    for layer in tower.values():
        layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    in_tower = count_calls(next(iter(tower.values())).mlp)
    in_decoder = count_calls(next(iter(decoder.values())).mlp)
    backward(loaded, model)
    outputs = [output[0] if isinstance(output, tuple) else output for output in outputs]
    assert [output.requires_grad for output in outputs] == [False] * len(tower)
    assert (len(in_tower), len(in_decoder)) == (1, 2)  # the decoder layer is computed again


@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_checkpointing_applies_to_a_trainable_tower(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    freeze_parts(loaded.model, loaded.family, [])
    enable_checkpointing(loaded.model)
    assert set(layers_of(loaded.model, "tower")) <= layers_that_checkpoint(loaded.model)


def test_checkpointing_applies_to_layers_after_a_trainable_one(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("qwen2_vl"))
    freeze_parts(loaded.model, loaded.family, None)
    first, second = layers_of(loaded.model, "tower").values()
    first.mlp.requires_grad_(True)
    enable_checkpointing(loaded.model)
    assert first.gradient_checkpointing
    assert second.gradient_checkpointing  # frozen, but gradients flow through it


@pytest.mark.parametrize("kind", ["freeze", "tower", "lora"])
def test_checkpointing_does_not_change_gradients(checkpoint: Checkpoint, kind: str) -> None:
    gradients = []
    for checkpointing in (True, False):
        torch.manual_seed(0)
        loaded, model = prepared(checkpoint("llava_onevision"), kind)
        if checkpointing:
            enable_checkpointing(model)
        gradients.append(backward(loaded, model))
    assert gradients[0].keys() == gradients[1].keys()
    for name, grad in gradients[0].items():
        torch.testing.assert_close(grad, gradients[1][name], rtol=1e-6, atol=1e-7)
