"""The same recipe runs on every kind of checkpoint, with text, math and image rows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from PIL import Image

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_files, check_loss, check_train
from unidpo_mm.errors import DataError, RecipeError
from unidpo_mm.training.run import check_from_recipe, train_from_recipe

Checkpoint = Callable[[str], Path]
CHECKS = (check_files, check_loss, check_train)

RECIPE = """
model: {{name_or_path: {model}, dtype: float32}}
data:
  eval_fraction: 0.25
  score_scale: [0, 5]
  sources:
    - {{path: text.jsonl, scores: {{scale: [0, 10], judge: us}}}}
    - {{path: math.jsonl, domain: math, scores: {{scale: [0, 10]}}, loss: {{nll_lambda: 0.2}}}}
    {images}
loss: {{name: uni_dpo, tau_good: median}}
train:
  output_dir: out
  max_steps: 2
  per_device_train_batch_size: 4
  learning_rate: 1.0e-3
  eval_strategy: steps
  eval_steps: 2
  logging_steps: 1
  report_to: none
  use_cpu: true
  disable_tqdm: true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 40), (200, 10, 10)).save(tmp_path / "red.png")
    Image.new("RGB", (40, 30), (10, 10, 200)).save(tmp_path / "blue.png")
    for name in ("text", "math", "images"):
        rows = [
            {
                "prompt": ("<image>\n" if name == "images" else "") + f"What is {name} {number}?",
                "responses": [
                    {"text": "A red square", "score": 9},
                    {"text": "Two circles", "score": 4},
                    {"text": "Nothing", "score": 4},
                ],
                **({"images": [["red.png", "blue.png"][number % 2]]} if name == "images" else {}),
            }
            for number in range(4)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def write_recipe(folder: Path, model: Path, *, images: bool) -> Path:
    line = "- {path: images.jsonl, scores: {scale: [0, 10]}}" if images else ""
    (folder / "recipe.yaml").write_text(RECIPE.format(model=model, images=line))
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("model_type", "auto_class"),
    [
        ("llama", "AutoModelForCausalLM"),
        ("qwen3", "AutoModelForCausalLM"),
        ("llava", "AutoModelForImageTextToText"),
        ("llava_next", "AutoModelForImageTextToText"),
        ("llava_onevision", "AutoModelForImageTextToText"),
        ("qwen2_vl", "AutoModelForImageTextToText"),
        ("qwen2_5_vl", "AutoModelForImageTextToText"),
        ("qwen3_vl", "AutoModelForImageTextToText"),
    ],
)
def test_the_same_recipe_runs_on_every_kind_of_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    auto_class: str,
) -> None:
    monkeypatch.chdir(folder)
    images = auto_class == "AutoModelForImageTextToText"
    path = write_recipe(folder, checkpoint(model_type), images=images)
    trainer = train_from_recipe(load_recipe(path, checks=CHECKS))
    metrics = [log for log in trainer.state.log_history if "eval_loss" in log][-1]
    assert {"eval_text/loss", "eval_math/loss"} <= metrics.keys()
    assert ("eval_multimodal/loss" in metrics) is images
    record = json.loads((folder / "out" / "run.json").read_text())
    assert (
        record["loss"]["by_source"]["text"]["tau_good"] == 4.5
    )  # 9 of 10, mapped to a scale up to 5
    assert record["loss"]["by_source"]["math"]["nll_lambda"] == 0.2
    assert record["judges"]["text"] == "us"
    assert record["prompts"]["style"] == "chat"
    assert len(record["prompts"]["chat_template_sha256"]) == 64
    saved = getattr(transformers, auto_class).from_pretrained(folder / "out")
    assert saved.config.model_type == model_type
    assert load_recipe(folder / "out" / "recipe.yaml").loss.parameters == {"tau_good": "median"}


def test_check_reads_everything_and_trains_nothing(
    checkpoint: Checkpoint,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    path = write_recipe(folder, checkpoint("llava"), images=True)
    check_from_recipe(load_recipe(path, checks=CHECKS))
    printed = capsys.readouterr().out
    assert "12 rows (4 math, 4 multimodal, 4 text)" in printed
    assert "2 optimizer steps of about 4 pairs" in printed
    assert not (folder / "out").exists()


def test_another_recipe_does_not_resume_from_this_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(folder)
    path = write_recipe(folder, checkpoint("qwen3"), images=False)

    def run(*overrides: str) -> int:
        keys = ["train.save_strategy=steps", "train.save_steps=1", *overrides]
        return train_from_recipe(load_recipe(path, keys, checks=CHECKS)).state.global_step

    assert run("train.max_steps=1") == 1
    with pytest.raises(RecipeError, match=r"another run \(loss.beta not set -> 1.0\)"):
        run("loss.beta=1.0")
    assert run() == 2  # more steps do not make another run
    assert "changed since the checkpoint: train.max_steps 1 -> 2" in caplog.text
    assert run("loss.beta=1.0", "train.max_steps=3", "run.allow_changes=[loss]") == 3
    assert run("loss.beta=0.5", "train.max_steps=1", "run.resume=never") == 1
    assert sorted(path.name for path in (folder / "out" / "set-aside-1").iterdir()) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-3",
        "ledger",
    ]


def test_trainable_weights_in_half_precision_cause_a_warning(
    checkpoint: Checkpoint,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(folder)
    path = write_recipe(folder, checkpoint("qwen3"), images=False)
    check_from_recipe(load_recipe(path, ["model.dtype=bfloat16"], checks=CHECKS))
    assert "small updates are rounded to zero" in caplog.text
    caplog.clear()
    check_from_recipe(load_recipe(path, ["model.dtype=bfloat16", "train.bf16=true"], checks=CHECKS))
    assert "small updates are rounded to zero" not in caplog.text


def test_problems_of_rows_images_and_lengths_come_in_one_message(
    checkpoint: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    bad = [
        {"prompt": "a", "chosen": "", "rejected": "b", "score_chosen": 1, "score_rejected": 0},
        {"prompt": "a", "chosen": "a", "rejected": "b", "score_chosen": 1},
        {
            "prompt": "a " * 200,
            "chosen": "a",
            "rejected": "b",
            "score_chosen": 1,
            "score_rejected": 0,
        },
        {"prompt": "a", "images": ["none.png"], "chosen": "a", "rejected": "b"},
    ]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, bad)))
    path = write_recipe(folder, checkpoint("llava"), images=True)
    recipe = load_recipe(path, ["data.max_length=64"], checks=CHECKS)
    with pytest.raises(DataError) as caught:
        train_from_recipe(recipe)
    message = str(caught.value)
    for words in (
        "text.jsonl row 1, field 'chosen': the response is empty",
        "text.jsonl row 2, field 'score_rejected': the score is missing",
        "text.jsonl row 3, field 'prompt': the prompt has",
        "none.png' does not exist",
    ):
        assert words in message
    assert not (folder / "out").exists()


def test_a_missing_file_and_a_wrong_parameter_come_in_one_message(folder: Path) -> None:
    path = write_recipe(folder, folder / "no-model", images=False)
    overrides = ["data.sources.0.path=gone.jsonl", "loss.simpo_gamma=1"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, checks=CHECKS)
    message = str(caught.value)
    assert "gone.jsonl" in message
    assert "the loss 'uni_dpo' has no parameter 'simpo_gamma'" in message
