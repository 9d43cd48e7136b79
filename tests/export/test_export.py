"""`unidpo-mm export`: what it writes equals the trained model, or is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from builders import IMAGE_TYPES, MODEL_TYPES, batch_of, family_name, load_tiny, mixed_rows
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import ModelError
from unidpo_mm.export import adapter_files, export
from unidpo_mm.modeling.load import ModelSource, load_weights
from unidpo_mm.modeling.tensor_files import TensorFiles
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]

TYPES = ("llama", "llava", "qwen2_vl")


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(
        **{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings}
    )


def auto_of(base: Path) -> Any:
    kind = json.loads((base / "config.json").read_text())["model_type"]
    return getattr(transformers, load_family(family_name(kind)).auto_class)


def adapter_of(base: Path, output: Path, config: Any) -> Path:
    """Save an adapter with changed weights, as after training."""
    torch.manual_seed(0)
    model = get_peft_model(auto_of(base).from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(output)
    return output


def run(folder: Path, output: Path, *options: str) -> Any:
    arguments = ["export", str(folder), "--output", str(output), *options]
    return CliRunner().invoke(build_app(arguments), arguments)


def refusal(result: Any) -> str:
    assert isinstance(result.exception, ModelError), result.output
    return str(result.exception)


def inputs_of(base: Path) -> dict[str, torch.Tensor]:
    loaded = load_tiny(base)
    kind = loaded.model.config.model_type
    batch = batch_of(loaded, mixed_rows(images=kind in IMAGE_TYPES))
    return dict(loaded.adapter.forward_inputs(batch.inputs))


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.eval()(**inputs).logits


def saved_parts(model_type: str) -> list[str]:
    """Return modules to train in full: the head, and for image models the projector."""
    parts = {"llava": ["multi_modal_projector"], "qwen2_vl": ["merger"]}
    return ["lm_head", *parts.get(model_type, [])]


# ---- what is written ----


@pytest.mark.parametrize("model_type", TYPES)
def test_a_merged_model_equals_its_base_with_the_adapter(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    base, inputs = checkpoint(model_type), inputs_of(checkpoint(model_type))
    config = lora(modules_to_save=saved_parts(model_type))
    adapter = adapter_of(base, tmp_path / "adapter", config)
    result = run(adapter, tmp_path / "merged", "--merge")
    assert result.exit_code == 0, result.output
    assert f"{auto_of(base).__name__}.from_pretrained" in result.output
    merged, info = auto_of(base).from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    policy = PeftModel.from_pretrained(auto_of(base).from_pretrained(base), adapter)
    assert torch.allclose(logits(merged, inputs), logits(policy, inputs), atol=1e-4)
    plain = logits(auto_of(base).from_pretrained(base), inputs)
    assert not torch.allclose(logits(merged, inputs), plain, atol=1e-2)
    assert TensorFiles(str(tmp_path / "merged")).shapes == TensorFiles(str(base)).shapes
    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"README.md", "generation_config.json", "tokenizer_config.json"} < files
    assert ("processor_config.json" in files) is (model_type in IMAGE_TYPES)
    assert "adapter_config.json" not in files
    template = load_tiny(base).adapter.processor.chat_template
    assert load_tiny(tmp_path / "merged").adapter.processor.chat_template == template


@pytest.mark.parametrize("full_modules", [False, True], ids=["lora", "and full modules"])
@pytest.mark.parametrize("model_type", TYPES)
def test_an_adapter_has_the_names_of_the_files_of_its_base(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, full_modules: bool
) -> None:
    base, inputs = checkpoint(model_type), inputs_of(checkpoint(model_type))
    config = lora(modules_to_save=saved_parts(model_type) if full_modules else None)
    adapter = adapter_of(base, tmp_path / "adapter", config)
    result = run(adapter, tmp_path / "exported")
    assert result.exit_code == 0, result.output
    assert ("vLLM does not serve" in result.output) is full_modules
    keys = load_file(tmp_path / "exported" / "adapter_model.safetensors")
    in_base = TensorFiles(str(base)).shapes
    for key in keys:
        name = key.removeprefix("base_model.model.")
        module, separator, _ = name.partition(".lora_")
        assert (f"{module}.weight" if separator else name) in in_base
    policy = PeftModel.from_pretrained(auto_of(base).from_pretrained(base), adapter)
    expected = logits(policy, inputs)
    # transformers, and the loader of this project
    plain = auto_of(base).from_pretrained(base)
    plain.load_adapter(str(tmp_path / "exported"))
    assert torch.allclose(logits(plain, inputs), expected, atol=1e-5)
    source = ModelSource(name_or_path=str(tmp_path / "exported"))
    family = load_family(family_name(model_type))
    assert torch.allclose(logits(load_weights(source, family), inputs), expected, atol=1e-5)


@pytest.mark.parametrize("model_type", TYPES)
def test_a_fully_trained_model_keeps_the_tensors_of_its_base(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    base = checkpoint(model_type)
    trained = auto_of(base).from_pretrained(base)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    trained.save_pretrained(tmp_path / "run")
    load_tiny(base).adapter.processor.save_pretrained(tmp_path / "run")
    unknown = run(tmp_path / "run", tmp_path / "exported")
    assert "its base model is unknown. Set --base" in refusal(unknown)
    result = run(tmp_path / "run", tmp_path / "exported", "--base", str(base))
    assert result.exit_code == 0, result.output
    assert TensorFiles(str(tmp_path / "exported")).shapes == TensorFiles(str(base)).shapes
    merged = run(tmp_path / "run", tmp_path / "other", "--base", str(base), "--merge")
    assert "is a full model, not a LoRA adapter. Remove it" in refusal(merged)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (lora(modules_to_save=["lm_head"]), False),
        (lora(target_modules=["embed_tokens", "q_proj"]), False),
        (lora(target_modules=["lm_head", "q_proj"]), False),
        (lora(trainable_token_indices=[5, 6, 7]), True),
        (lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), True),
        (lora(), True),
        (lora(use_dora=True), True),
        (IA3Config(target_modules=["v_proj"], feedforward_modules=[]), True),
    ],
    ids=["full head", "embeddings", "head", "tokens", "kept tied", "lora", "dora", "ia3"],
)
def test_tied_embeddings_and_other_methods_are_merged(
    tmp_path: Path, config: Any, tied: bool
) -> None:
    base = load_family("text").tiny(tmp_path / "base", tie_word_embeddings=True)
    adapter = adapter_of(base, tmp_path / "adapter", config)
    result = run(adapter, tmp_path / "merged", "--merge")
    assert result.exit_code == 0, result.output
    auto = transformers.AutoModelForCausalLM
    merged = auto.from_pretrained(tmp_path / "merged")
    policy = PeftModel.from_pretrained(auto.from_pretrained(base), adapter)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]])}
    assert torch.allclose(logits(merged, inputs), logits(policy, inputs), atol=1e-4)
    assert merged.config.tie_word_embeddings is tied


def test_the_number_format_is_that_of_the_model_or_the_chosen_one(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", lora())
    result = run(adapter, tmp_path / "half", "--merge", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    result = run(adapter, tmp_path / "half-adapter", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    tensors = load_file(tmp_path / "half-adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_tensors_that_the_model_does_not_load_are_copied(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """As the weights for multi-token prediction, which other programs use."""
    base = tmp_path / "base"
    shutil.copytree(checkpoint("llama"), base)
    extra = torch.randn(3, 5)
    weights = load_file(base / "model.safetensors")
    save_file(
        weights | {"mtp.layers.0.weight": extra}, base / "model.safetensors", {"format": "pt"}
    )
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    result = run(adapter, tmp_path / "merged", "--merge")
    assert "1 tensor of the base model that LlamaForCausalLM does not load" in result.output
    files = TensorFiles(str(tmp_path / "merged"))
    assert files.shapes == TensorFiles(str(base)).shapes
    assert torch.equal(files.read(["mtp.layers.0.weight"])["mtp.layers.0.weight"], extra)
    auto = transformers.AutoModelForCausalLM
    _, info = auto.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]


def test_an_adapter_without_effect_is_noted(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(checkpoint("llama")), lora()
    )
    model.save_pretrained(tmp_path / "adapter")
    result = run(tmp_path / "adapter", tmp_path / "exported")
    assert "the LoRA adapter changes nothing: its weights are zero" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted({*MODEL_TYPES} - {*TYPES}))
def test_every_family_is_exported_both_ways(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    base = checkpoint(model_type)
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    for name, options in (("merged", ["--merge"]), ("adapter-only", [])):
        result = run(adapter, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
    assert TensorFiles(str(tmp_path / "merged")).shapes == TensorFiles(str(base)).shapes


@pytest.mark.parametrize("model_type", TYPES)
def test_models_without_a_chat_template_are_exported(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoint(model_type), base)
    (base / "chat_template.jinja").unlink()
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    result = run(adapter, tmp_path / "exported")
    assert result.exit_code == 0, result.output


# ---- what is noticed: each check with an export that is broken on purpose ----


def test_a_lost_tensor_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(checkpoint("llava"), tmp_path / "adapter", lora())
    save = transformers.PreTrainedModel.save_pretrained

    def lossy(model: Any, directory: Any, **options: Any) -> None:
        save(model, directory, **options)
        file = Path(directory) / "model.safetensors"
        weights = load_file(file)
        weights.pop(min(name for name in weights if name.startswith("vision_tower")))
        save_file(weights, file, {"format": "pt"})

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", lossy)
    result = run(adapter, tmp_path / "merged", "--merge")
    assert "1 tensor of the base model would be lost, such as vision_tower." in refusal(result)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("model_type", TYPES)
def test_a_wrong_merge_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    adapter = adapter_of(checkpoint(model_type), tmp_path / "adapter", lora())
    monkeypatch.setattr(export, "merge_adapter", lambda policy, where: policy.unload())
    result = run(adapter, tmp_path / "merged", "--merge")
    assert "log-probs of the exported model differ from those of the trained" in refusal(result)


def test_a_tower_that_is_wrong_only_for_images_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(checkpoint("llava"), tmp_path / "adapter", lora())
    merge = export.merge_adapter

    def broken(policy: Any, where: str) -> Any:
        merged = merge(policy, where)
        with torch.no_grad():
            merged.model.multi_modal_projector.linear_1.weight.mul_(-1)
        return merged

    monkeypatch.setattr(export, "merge_adapter", broken)
    result = run(adapter, tmp_path / "merged", "--merge")
    assert "log-probs of the exported model differ" in refusal(result)


def test_keys_that_no_module_of_the_base_has_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(checkpoint("qwen2_vl"), tmp_path / "adapter", lora())
    monkeypatch.setattr(adapter_files, "renamed", lambda key, modules: key)
    result = run(adapter, tmp_path / "exported")
    assert "has no weights for the module model.language_model.layers.0." in refusal(result)


def test_another_chat_template_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(checkpoint("llava"), tmp_path / "adapter", lora())
    write = export._write

    def with_other_template(model: Any, trained: Any, directory: Path, *rest: Any) -> Any:
        notes = write(model, trained, directory, *rest)
        file = directory / "chat_template.jinja"
        file.write_text("Please: " + file.read_text())
        return notes

    monkeypatch.setattr(export, "_write", with_other_template)
    result = run(adapter, tmp_path / "exported")
    assert "the processor of the exported model encodes a prompt differently" in refusal(result)


# ---- existing and incomplete output, unusable input ----


def test_a_directory_with_files_is_never_overwritten(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", lora())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("taken", "file", "adapter"):
        assert refusal(run(adapter, tmp_path / name)).startswith("--output")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert run(adapter, tmp_path / "empty").exit_code == 0
    assert (tmp_path / "empty" / "adapter_config.json").is_file()


def test_a_failed_export_leaves_no_files(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", lora())

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    result = run(adapter, tmp_path / "out" / "merged", "--merge")
    assert "No space left" in refusal(result)
    assert list((tmp_path / "out").iterdir()) == []


def test_directories_that_cannot_be_exported_are_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base, output = tmp_path / "base", tmp_path / "exported"
    shutil.copytree(checkpoint("llama"), base)
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    assert "is not a directory" in refusal(run(tmp_path / "absent", output))
    (tmp_path / "empty").mkdir()
    assert "so it is not a model. Use the output directory" in refusal(
        run(tmp_path / "empty", output)
    )
    (tmp_path / "empty" / "checkpoint-3").mkdir()
    unfinished = refusal(run(tmp_path / "empty", output))
    assert "has not saved its final model. Finish it, or use one of its checkpoints" in unfinished
    base.rename(tmp_path / "moved")
    moved = refusal(run(adapter, output))
    assert "does not exist. Set --base to the base model" in moved
    config = json.loads((tmp_path / "moved" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config))
    quantized = refusal(run(adapter, output, "--merge", "--base", str(tmp_path / "moved")))
    assert "is quantized. Set --base" in quantized
    assert not output.exists()


def test_the_base_must_be_the_model_that_was_trained(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("llama")
    other = load_family("text").tiny(tmp_path / "other", num_hidden_layers=3)
    trained = tmp_path / "run"
    shutil.copytree(base, trained)
    result = refusal(run(trained, tmp_path / "exported", "--base", str(other)))
    assert "its modules are not those of its base model, for example model.layers.2" in result
    other = load_family("text").tiny(tmp_path / "wide", intermediate_size=40)
    result = refusal(run(trained, tmp_path / "exported", "--base", str(other)))
    assert "would have another shape than in the base model, such as model.layers.0.mlp" in result
    other = load_family("text").tiny(tmp_path / "qwen3", model_type="qwen3")
    result = refusal(run(trained, tmp_path / "exported", "--base", str(other)))
    assert "it is of the type 'llama', and its base model of the type 'qwen3'" in result
