"""Processors that cannot encode an image, or disagree with their model, are refused at start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import EVERY_IMAGE_TYPE, family_name, load_tiny, make_image
from support.more_types import build_type
from support.untested_types import build
from trainers import config, make_trainer

from unidpo_mm.adapter import image_settings
from unidpo_mm.errors import ModelError, Problem
from unidpo_mm.inference.checkpoint import find_checkpoint, load_checkpoint
from unidpo_mm.inference.image_tokens import check_image_tokens
from unidpo_mm.plugins import load_family
from unidpo_mm.testing import check_checkpoint

Checkpoint = Callable[[str], Path]

ROWS = [
    {"prompt": "What is it?", "images": [make_image(1)], "chosen": "A square", "rejected": "Blue"},
    {"prompt": "Write one word.", "chosen": "Hello", "rejected": "Two circle"},
]
FAST = ("llava", "qwen2_5_vl", "internvl")

CONFIG, PROCESSOR, TOKENIZER = "config.json", "processor_config.json", "tokenizer_config.json"


def edited(folder: Path, source: Path, file: str, **changes: Any) -> Path:
    """Copy a checkpoint and change settings of a file; `None` removes one, `__` is for nesting."""
    shutil.copytree(source, folder)
    content = json.loads((folder / file).read_text())
    for path, value in changes.items():
        *parents, name = path.split("__")
        holder = content
        for parent in parents:
            holder = holder[parent]
        holder[name] = value
        if value is None:
            del holder[name]
    (folder / file).write_text(json.dumps(content))
    return folder


def with_template(folder: Path, source: Path, change: Callable[[str], str]) -> Path:
    shutil.copytree(source, folder)
    file = folder / "chat_template.jinja"
    text = change(file.read_text())
    assert text != file.read_text()
    file.write_text(text)
    return folder


def problem_at_start(folder: Path, output: Path) -> Problem:
    """Return the problem that training stops with before its first step."""
    args = config(output, loss_type="dpo", max_steps=1)
    with pytest.raises(ModelError) as error:
        make_trainer(folder, ROWS, args)
    (problem,) = error.value.problems
    assert problem.where == str(folder)
    return problem


# ---- numbers of tokens and features ----

SETTINGS = {
    "llava patch_size": ("llava", PROCESSOR, {"patch_size": 7}),
    "llava additional": ("llava", PROCESSOR, {"num_additional_image_tokens": 0}),
    "llava strategy": ("llava", CONFIG, {"vision_feature_select_strategy": "full"}),
    "llava_next patch_size": ("llava_next", PROCESSOR, {"patch_size": 7}),
    "gemma3 length": ("gemma3", PROCESSOR, {"image_seq_length": 9}),
    "internvl length": ("internvl", PROCESSOR, {"image_seq_length": 9}),
    "idefics3 length": ("idefics3", PROCESSOR, {"image_seq_len": 7}),
    "qwen merge_size": ("qwen2_5_vl", PROCESSOR, {"image_processor__merge_size": 1}),
    "qwen frames": ("qwen2_5_vl", PROCESSOR, {"image_processor__temporal_patch_size": 1}),
}
"""Name -> model type, file, and settings that disagree with the other files."""
COUNTS = {
    "llava patch_size": "writes 16 image tokens for 1 image, and the model returns 4 features: "
    "patch_size in processor_config.json is 7, and vision_config.patch_size in config.json is 14",
    "gemma3 length": "image_seq_length in processor_config.json is 9, and mm_tokens_per_image in",
    "qwen merge_size": "merge_size in the image processor is 1, and vision_config.spatial_merge_",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_disagree_with_the_model_are_named(
    checkpoint: Checkpoint, tmp_path: Path, name: str
) -> None:
    model_type, file, changes = SETTINGS[name]
    folder = edited(tmp_path / "model", checkpoint(model_type), file, **changes)
    loaded = load_tiny(folder)
    with pytest.raises(ModelError) as error:
        check_image_tokens(loaded.model, loaded.adapter, "cpu")
    (problem,) = error.value.problems
    assert problem.where == str(folder)
    assert COUNTS.get(name, "image") in problem.message
    (setting,) = (path.rpartition("__")[2] for path in changes)
    assert setting in problem.remedy


def test_training_and_loading_report_the_same_problem(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = edited(tmp_path / "model", checkpoint("llava"), PROCESSOR, patch_size=7)
    at_start = problem_at_start(folder, tmp_path / "run")
    with pytest.raises(ModelError) as error:
        load_checkpoint(find_checkpoint(str(folder)), dtype="float32", device="cpu")
    assert error.value.problems == (at_start,)


def test_a_type_without_an_entry_reports_one_problem(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vipllava")
    folder = edited(tmp_path / "model", source, PROCESSOR, patch_size=7)
    problem = problem_at_start(folder, tmp_path / "run")
    assert "image tokens for 1 image, and the model returns" in problem.message
    assert problem.remedy.startswith("Use the files of the processor and config.json of the same")


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in EVERY_IMAGE_TYPE
    ],
)
def test_the_settings_of_a_correct_checkpoint_agree(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    check_image_tokens(loaded.model, loaded.adapter, "cpu")
    settings = image_settings(loaded.adapter)
    assert settings
    assert not [setting for setting in settings if setting.differs]
    assert not [setting for setting in settings if setting.value is None]
    unset = [s for s in settings if s.model_name and s.model_value is None]
    assert not unset


# ---- processors and templates that cannot encode an image ----


def test_a_missing_setting_is_a_problem_of_the_processor(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = edited(tmp_path / "model", checkpoint("llava"), PROCESSOR, patch_size=None)
    problem = problem_at_start(folder, tmp_path / "run")
    assert problem.message.startswith("patch_size in processor_config.json is not set, so Llava")
    assert problem.remedy.startswith("Set patch_size in processor_config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("''", "the chat template of the model writes no placeholder for an image ('<image>')"),
        ("'<image>' * 2", "the chat template of the model writes 2 placeholders for an image"),
        ("'a' + ['b']", "the chat template of the model fails for an image: TypeError"),
        ("'a' +", "the chat template of the model fails for an image: TemplateSyntaxError"),
    ],
    ids=["none", "two", "type", "syntax"],
)
def test_a_template_that_cannot_write_images_is_a_problem_of_the_model(
    checkpoint: Checkpoint, tmp_path: Path, text: str, message: str
) -> None:
    def change(template: str) -> str:
        return template.replace("'<image>\\n'", text).replace("'<image>\n'", text)

    folder = with_template(tmp_path / "model", checkpoint("llava"), change)
    problem = problem_at_start(folder, tmp_path / "run")
    assert problem.message.startswith(message)


def test_raw_prompts_do_not_need_the_template(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = with_template(
        tmp_path / "model", checkpoint("llava"), lambda text: text.replace("<image>", "")
    )
    load_tiny(folder, prompt_style="raw")
    with pytest.raises(ModelError, match="writes no placeholder"):
        load_tiny(folder)


@pytest.mark.parametrize("model_type", ["llava", "internvl", "paligemma"])
@pytest.mark.parametrize("token_id", [1, 4])  # a token of the template, and for InternVL a mark
def test_another_id_of_the_image_token_is_named_with_the_directory(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, token_id: int
) -> None:
    source = checkpoint(model_type)
    settings = json.loads((source / CONFIG).read_text())
    (name,) = settings.keys() & {"image_token_id", "image_token_index"}
    folder = edited(tmp_path / "model", source, CONFIG, **{name: token_id})
    problem = problem_at_start(folder, tmp_path / "run")
    expected = f"config.json says image_token_id {token_id}, and the tokenizer has '<"
    assert problem.message.startswith(expected)
    assert problem.message.endswith(f" at {settings[name]}")


def test_a_type_without_an_entry_and_template_is_refused(tmp_path: Path) -> None:
    folder = build_type(tmp_path / "model", "glm_ocr")
    (folder / "chat_template.jinja").unlink()
    problem = problem_at_start(folder, tmp_path / "run")
    assert problem.message == (
        "the model has no chat template, and how it writes an image in a prompt is not known"
    )
    assert problem.remedy == "Save a chat template with the processor"


def test_raw_prompts_of_a_type_without_an_entry_have_the_marks_of_its_template(
    tmp_path: Path,
) -> None:
    adapter: Any = load_tiny(build_type(tmp_path / "model", "glm_ocr"), prompt_style="raw").adapter
    assert adapter.placeholders["image"] == "<|begin_of_image|><|image|><|end_of_image|>"


# ---- padding ----


@pytest.mark.parametrize("model_type", FAST)
def test_padding_is_no_image_token(checkpoint: Checkpoint, tmp_path: Path, model_type: str) -> None:
    source = checkpoint(model_type)
    token = load_tiny(source).adapter.processor.image_token
    folder = edited(tmp_path / "model", source, TOKENIZER, pad_token=str(token))
    adapter: Any = load_tiny(folder).adapter
    assert adapter.tokenizer.pad_token_id == adapter.image_token_id
    assert adapter.pad_token_id != adapter.image_token_id
    # log-probs of a padded batch equal those of the library, one response at a time
    check_checkpoint(load_family(family_name(model_type)), folder)
