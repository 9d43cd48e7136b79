"""`unidpo-mm merge`: the merged model needs no PEFT and computes what base and adapter compute."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from builders import IMAGE_TYPES, batch_of, family_name, load_tiny, mixed_rows
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling import merge as merging
from unidpo_mm.modeling.load import ModelSource
from unidpo_mm.modeling.merge import merge_adapter
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


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


def merge(adapter: Path, output: Path, *options: str) -> Any:
    arguments = ["merge", str(adapter), "--output", str(output), *options]
    return CliRunner().invoke(build_app(arguments), arguments)


@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_a_merged_model_equals_its_base_with_the_adapter(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    base = checkpoint(model_type)
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    result = merge(adapter, tmp_path / "merged")
    assert result.exit_code == 0, result.output
    assert f"{auto_of(base).__name__}.from_pretrained" in result.output
    loaded = load_tiny(base)
    batch = batch_of(loaded, mixed_rows(images=model_type in IMAGE_TYPES))
    inputs = dict(loaded.adapter.forward_inputs(batch.inputs))
    merged, info = auto_of(base).from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        plain = auto_of(base).from_pretrained(base).eval()(**inputs).logits
        policy = PeftModel.from_pretrained(auto_of(base).from_pretrained(base), adapter).eval()
        expected, logits = policy(**inputs).logits, merged.eval()(**inputs).logits
    assert torch.allclose(logits, expected, atol=1e-4)
    assert not torch.allclose(logits, plain, atol=1e-2)
    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer_config.json"} < files
    assert ("processor_config.json" in files) is (model_type in IMAGE_TYPES)
    assert "adapter_config.json" not in files
    again = load_tiny(tmp_path / "merged")
    assert again.adapter.processor.chat_template == loaded.adapter.processor.chat_template


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
    merge_adapter(ModelSource(name_or_path=str(adapter)), tmp_path / "merged")
    auto = transformers.AutoModelForCausalLM
    merged = auto.from_pretrained(tmp_path / "merged").eval()
    policy = PeftModel.from_pretrained(auto.from_pretrained(base), adapter).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, policy(ids).logits, atol=1e-4)
    assert merged.config.tie_word_embeddings is tied


def test_the_number_format_is_that_of_the_base_or_the_chosen_one(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", lora())
    result = merge(adapter, tmp_path / "half", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


# ---- existing and incomplete output ----


def test_a_directory_with_files_is_never_overwritten(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", lora())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("taken", "file", "adapter"):
        result = merge(adapter, tmp_path / name)
        assert isinstance(result.exception, ModelError), name
        assert result.exception.problems[0].where == "--output"
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert merge(adapter, tmp_path / "empty").exit_code == 0
    assert (tmp_path / "empty" / "config.json").is_file()


@pytest.mark.parametrize("moment", ["save", "check"])
def test_a_failed_merge_leaves_no_files(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", lora())

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    if moment == "save":
        monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    else:
        logits = iter([*[torch.zeros(1)] * 3, torch.ones(1)])
        monkeypatch.setattr(merging, "_probe", lambda model: next(logits))
    with pytest.raises(ModelError, match=r"No space left|differ by 1 after saving"):
        merge_adapter(ModelSource(name_or_path=str(adapter)), tmp_path / "out" / "merged")
    assert list((tmp_path / "out").iterdir()) == []


def test_paths_that_cannot_be_merged_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoint("llama"), base)
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    complete_model = merge(base, tmp_path / "merged")
    assert "not a LoRA adapter directory" in str(complete_model.exception)
    absent = merge(tmp_path / "absent", tmp_path / "merged")
    assert "is not a directory" in str(absent.exception)
    base.rename(tmp_path / "moved")
    moved = merge(adapter, tmp_path / "merged")
    assert "does not exist. Set --base to the base model" in str(moved.exception)
    config = json.loads((tmp_path / "moved" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config))
    quantized = merge(adapter, tmp_path / "merged", "--base", str(tmp_path / "moved"))
    assert "is quantized. Set --base" in str(quantized.exception)
    assert not (tmp_path / "merged").exists()
