"""A LoRA adapter on a base model of another type is refused with both types."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import IMAGE_TYPES, family_name, mixed_rows
from peft import LoraConfig, get_peft_model
from trainers import config, make_trainer

from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.load import ModelSource, load_config
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


def adapter_of(base: Path, output: Path, **settings: Any) -> Path:
    """Save a new LoRA adapter and, for models with images, its processor, as the trainer does."""
    import transformers

    kind = json.loads((base / "config.json").read_text())["model_type"]
    auto_class = getattr(transformers, load_family(family_name(kind)).auto_class)
    targets = r".*layers\.0\.self_attn\.(q|v)_proj"
    lora = LoraConfig(r=2, target_modules=targets, **{"task_type": "CAUSAL_LM", **settings})
    get_peft_model(auto_class.from_pretrained(base), lora).save_pretrained(output)
    if kind in IMAGE_TYPES:
        transformers.AutoProcessor.from_pretrained(base).save_pretrained(output)
    return output


def record_base(adapter: Path, name: str) -> None:
    path = adapter / "adapter_config.json"
    content = json.loads(path.read_text()) | {"base_model_name_or_path": name}
    path.write_text(json.dumps(content))


def source_of(adapter: Path, base: Path | None = None) -> ModelSource:
    name = None if base is None else str(base)
    return ModelSource(name_or_path=str(adapter), base_name_or_path=name)


@pytest.mark.parametrize(
    ("trained", "other"), [("llava", "internvl"), ("llava", "qwen2_vl"), ("llama", "qwen3")]
)
def test_a_base_model_of_another_type_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, trained: str, other: str
) -> None:
    adapter = adapter_of(checkpoint(trained), tmp_path / "adapter")
    base = checkpoint(other)
    args = config(tmp_path / "run", base_name_or_path=str(base))
    with pytest.raises(ModelError) as error:
        make_trainer(adapter, mixed_rows(images=trained in IMAGE_TYPES), args)
    assert str(error.value) == (
        f"{adapter}: the LoRA adapter was trained on a model of the type '{trained}', and the base "
        f"model '{base}' is of the type '{other}'. Set model.base_name_or_path to the model that "
        "it was trained on."
    )


@pytest.mark.parametrize("chosen", [True, False])
def test_the_processor_shows_the_type_if_the_first_base_model_is_absent(
    checkpoint: Checkpoint, tmp_path: Path, chosen: bool
) -> None:
    adapter = adapter_of(checkpoint("llava"), tmp_path / "adapter")
    other = checkpoint("internvl")
    record_base(adapter, "/absent/base" if chosen else str(other))
    with pytest.raises(ModelError, match=r"of the type 'llava'.*, and the base .* 'internvl'"):
        load_config(source_of(adapter, other if chosen else None))


def test_the_recorded_class_shows_the_type(checkpoint: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_of(checkpoint("llama"), tmp_path / "adapter", task_type=None)
    record_base(adapter, "/absent/base")
    with pytest.raises(ModelError, match=r"of the type 'llama', and the base .* 'qwen3'"):
        load_config(source_of(adapter, checkpoint("qwen3")))


@pytest.mark.parametrize("model_type", ["llava", "internvl", "qwen2_vl", "mistral3", "llama"])
def test_a_base_model_of_the_same_type_is_accepted(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    adapter = adapter_of(checkpoint(model_type), tmp_path / "adapter")
    load_config(source_of(adapter))
    record_base(adapter, "/absent/base")
    base = checkpoint(model_type)
    assert load_config(source_of(adapter, base)).model_type == model_type
    (adapter / "processor_config.json").unlink(missing_ok=True)
    assert load_config(source_of(adapter, base)).model_type == model_type
