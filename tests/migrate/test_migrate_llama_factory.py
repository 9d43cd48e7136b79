"""LLaMA-Factory configurations: values, stated defaults, notes and errors."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from migrations import migrate_text

from unidpo_mm.errors import RecipeError

IMAGES = """
### model
model_name_or_path: Qwen/Qwen2.5-VL-3B-Instruct
image_max_pixels: 262144
trust_remote_code: true

### method
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
pref_beta: 0.2
pref_loss: sigmoid

### dataset
dataset: street_signs, menus
template: qwen2_vl
cutoff_len: 4096
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
output_dir: saves/signs
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
report_to: none

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
seed: 7
resume_from_checkpoint: null

### eval
val_size: 0.05
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 100
"""

SHORT = "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


migrated = partial(migrate_text, framework="LLaMA-Factory")


def test_configuration_for_images(directory: Path) -> None:
    recipe, notes = migrated(directory, IMAGES)
    assert recipe.model.model_dump(exclude_defaults=True) == {
        "name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct",
        "trust_remote_code": True,
        "dtype": "bfloat16",
        "freeze": ["vision_tower", "projector"],
        "image_max_size": "262144 pixels",
        "image_min_size": "1024 pixels",
        "prompt_style": "chat",
        # its `lora_target` names modules of the language model alone, as the tower is frozen
        "lora": {"r": 8, "alpha": 16, "targets": r".*language_model.*\.(?:q_proj|v_proj)"},
    }
    assert recipe.loss.name == "dpo"
    assert recipe.loss.parameters == {"beta": 0.2, "label_smoothing": 0.0, "length_norm": False}
    assert recipe.data.max_length == 4096
    assert recipe.data.eval_fraction == 0.05
    assert recipe.data.seed == 7
    assert recipe.train.output_dir == "saves/signs"
    assert recipe.train.arguments == {
        "do_train": True,
        "logging_steps": 10,
        "save_steps": 500,
        "report_to": "none",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 5e-6,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "bf16": True,
        "seed": 7,
        "per_device_eval_batch_size": 1,
        "eval_strategy": "steps",
        "eval_steps": 100,
        "activation_checkpointing": True,
    }
    assert recipe.run.resume == "never"
    assert set(notes) == {
        "image_max_pixels",
        "dataset",
        "template",
        "cutoff_len",
        "max_samples",
        "overwrite_cache",
        "preprocessing_num_workers",
        "plot_loss",
        "val_size",
    }


def test_defaults_are_stated(directory: Path) -> None:
    recipe, notes = migrated(directory, SHORT)
    assert recipe.loss.name == "dpo"
    assert recipe.loss.parameters == {"beta": 0.1, "label_smoothing": 0.0, "length_norm": False}
    assert recipe.data.max_length == 2048
    assert recipe.model.lora is not None
    lora = recipe.model.lora
    assert (lora.r, lora.alpha, lora.dropout, lora.targets) == (8, 16, 0.0, "language_model")
    assert recipe.model.freeze is None  # the file does not mention images
    assert recipe.model.image_max_size is None
    assert recipe.train.arguments == {"learning_rate": 5e-5, "activation_checkpointing": True}
    assert set(notes) == {"dataset"}
    text = (directory / "recipe.yaml").read_text()
    assert text.count("# LLaMA-Factory's default") == 10


def test_defaults_for_images_are_stated_for_vision_language_models(directory: Path) -> None:
    recipe, _ = migrated(directory, SHORT + "finetuning_type: full\nfreeze_vision_tower: true\n")
    assert recipe.model.freeze == ("vision_tower", "projector")
    assert recipe.model.image_max_size == "589824 pixels"
    assert recipe.model.lora is None


@pytest.mark.parametrize(
    ("lines", "targets"),
    [
        ("lora_target: all", "language_model"),
        ("freeze_vision_tower: false", "all-linear"),
        ("freeze_vision_tower: false\nfreeze_language_model: true", "vision_tower"),
        ("freeze_vision_tower: false\nlora_target: [k_proj]", ("k_proj",)),
        ("lora_target: k_proj", ("k_proj",)),
    ],
    ids=["all", "the tower too", "the tower alone", "names, the tower too", "names, text"],
)
def test_lora_targets_follow_the_trained_parts(directory: Path, lines: str, targets: Any) -> None:
    recipe, _ = migrated(directory, SHORT + lines + "\n")
    assert recipe.model.lora is not None
    assert recipe.model.lora.targets == targets


@pytest.mark.parametrize(
    ("value", "kwargs", "note"),
    [
        ("true", {"enable_thinking": True}, "LLaMA-Factory starts those without reasoning"),
        ("false", {"enable_thinking": False}, "set `reasoning: strip` in the sources"),
        ("no", {"enable_thinking": False}, "set `reasoning: strip` in the sources"),
        ("null", None, "set `chat_template_kwargs` in the rows"),
    ],
)
def test_thinking_becomes_a_variable_of_the_chat_template(
    directory: Path, value: str, kwargs: dict[str, bool], note: str
) -> None:
    lines = f"template: qwen3\nenable_thinking: {value}\n"
    recipe, notes = migrated(directory, SHORT + lines)
    assert recipe.model.chat_template_kwargs == kwargs
    assert note in notes["enable_thinking"]


def test_thinking_has_no_effect_without_a_template(directory: Path) -> None:
    recipe, notes = migrated(directory, SHORT + "template: empty\nenable_thinking: false\n")
    assert recipe.model.chat_template_kwargs is None
    assert "no effect" in notes["enable_thinking"]


def test_checkpoints_in_the_output_directory_have_a_note(directory: Path) -> None:
    (directory / "saves" / "checkpoint-10").mkdir(parents=True)
    _, notes = migrated(directory, SHORT + "output_dir: saves\n")
    assert "'saves' contains checkpoints" in notes["output_dir"]
    _, notes = migrated(directory, SHORT + "output_dir: saves\noverwrite_output_dir: true\n")
    assert "output_dir" not in notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHORT.replace("dpo", "sft"), "key 'stage': the stage 'sft' does not"),
        (SHORT.replace("dpo", "kto") + "pref_ftx: 0.5\n", "cannot be added to KTO"),
        (SHORT.replace("stage: dpo", "pref_beta: 1"), "the stage is missing"),
        (SHORT + "finetuning_type: oft\n", "'oft' is not supported"),
        (SHORT + "pref_loss: sigmiod\n", "did you mean 'sigmoid'"),
        (SHORT + "lora_rank: many\n", "key 'lora_rank': expected a number, not the text 'many'"),
        (SHORT + "lora_rank: 8.5\n", "key 'lora_rank': found the number 8.5"),
        (SHORT + "learning_rate: fast\n", "line 4, key 'learning_rate': found the text 'fast'"),
        (SHORT + "dpo_label_smoothing: 0.7\n", "key 'dpo_label_smoothing'"),
        (SHORT + "flash_attn: fa9\n", "key 'flash_attn'"),
        (SHORT + "enable_thinking: maybe\n", "key 'enable_thinking': expected true or false"),
        (SHORT + "disable_gradient_checkpointing: 2\n", "Use one of true, false, null"),
        (SHORT + "warmup_ratio: 2\n", "key 'warmup_ratio'"),
        (
            SHORT + "freeze_vision_tower: true\nfreeze_language_model: true\n",
            "every part of the model is frozen",
        ),
    ],
    ids=[
        "sft",
        "kto",
        "no stage",
        "method",
        "loss",
        "no number",
        "no whole number",
        "argument",
        "range",
        "attention",
        "thinking",
        "checkpointing",
        "warm-up",
        "frozen",
    ],
)
def test_unsupported_values_are_errors(directory: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        migrated(directory, text)


def test_all_problems_are_reported_at_once(directory: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        migrated(directory, "stage: ppo\nfinetuning_type: oft\npref_loss: x\nlearning_rate: a\n")
    message = str(caught.value)
    assert "(6 problems)" in message
    for key in ("stage", "finetuning_type", "pref_loss", "learning_rate", "model_name_or_path"):
        assert f"key '{key}'" in message
    assert "the training data is missing" in message


def test_the_stage_kto(directory: Path) -> None:
    text = SHORT.replace("dpo", "kto") + "pref_beta: 0.2\nkto_chosen_weight: 1.5\n"
    recipe, notes = migrated(directory, text + "simpo_gamma: 1.0\n")
    expected = {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 1.0}
    assert (recipe.loss.name, recipe.loss.parameters) == ("kto", expected)
    assert "no effect on the loss 'kto'" in notes["simpo_gamma"]
