"""Every type with images on the real command line: train, resume, evaluate, chat, export."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import EVERY_IMAGE_TYPE, make_image
from safetensors import safe_open
from safetensors.torch import load_file
from support.commands import run_command
from support.eval_commands import run as run_evaluation
from support.eval_commands import text_of
from support.small_benchmarks import option_table, predictions, run_arguments
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app

Checkpoint = Callable[[str], Path]

FULL = ("internvl",)
LORA = ("llava", "qwen2_vl")
"""A type per family, each in one of the tests; the others are slow."""
NEED_IMAGES = ("paligemma",)

RECIPE = """
model: {{name_or_path: {model}, dtype: float32{lora}}}
data: {{sources: [{{path: {data}}}]}}
loss: {{name: dpo}}
train:
  output_dir: out
  max_steps: 4
  save_steps: 2
  per_device_train_batch_size: 2
  optim: adamw_torch
  learning_rate: 1.0e-3
  lr_scheduler_type: constant
  activation_checkpointing: true
  report_to: none
  use_cpu: true
  disable_tqdm: true
"""


def types(fast: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(name, marks=() if name in fast else pytest.mark.slow)
        for name in EVERY_IMAGE_TYPE
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write rows with one image, two images, a wide image and none, and return their directory."""
    folder = tmp_path_factory.mktemp("data")
    sizes = ((40, 30), (30, 56), (70, 60), (120, 30))
    for number, size in enumerate(sizes):
        make_image(number, size).save(folder / f"{number}.png")
    rows = []
    for images in (["0.png"], ["1.png", "2.png"], ["3.png"], []):
        prompt = "<image>" * len(images) + "What is it?"
        row = {"prompt": prompt, "chosen": "A red square", "rejected": "Blue", "images": images}
        rows.append(row)
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "pairs.jsonl").write_text("".join(lines))
    (folder / "images.jsonl").write_text("".join(lines[:3]))
    return folder


def train(folder: Path, model: Path, data: Path, *overrides: str, lora: bool = False) -> Path:
    """Run `unidpo-mm train` in a directory; return its output directory."""
    folder.mkdir(exist_ok=True)
    model_type = json.loads((model / "config.json").read_text())["model_type"]
    rows = data / ("images.jsonl" if model_type in NEED_IMAGES else "pairs.jsonl")
    settings = ", lora: {r: 2, alpha: 4}" if lora else ""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model, data=rows, lora=settings))
    output = folder / "out"
    done = run_command("train", str(recipe), f"train.output_dir={output}", *overrides)
    assert done.exit_code == 0, done.output
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a saved model or LoRA adapter."""
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def names(folder: Path) -> Iterator[str]:
    """Yield the names of the tensors of a saved model or LoRA adapter."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as content:
            yield from content.keys()


def evaluate(model: Path, folder: Path) -> set[str]:
    """Run a benchmark with images; return the responses."""
    table = option_table(folder, rows=3)
    done = run_evaluation(*run_arguments(model, table, folder / "results", "ai2d"))
    assert done.exit_code == 0, text_of(done)
    (path,) = (folder / "results").rglob("ai2d.jsonl")
    items = predictions(path).values()
    assert len(items) == 3
    assert not any(item.get("error") for item in items)
    return {item["response"] for item in items}


@pytest.mark.parametrize("model_type", types(FULL))
def test_a_resumed_run_equals_one_without_a_stop_and_saves_every_tensor(
    checkpoint: Checkpoint, tmp_path: Path, data: Path, model_type: str
) -> None:
    model = checkpoint(model_type)
    straight = train(tmp_path / "straight", model, data)
    stopped = train(tmp_path / "stopped", model, data, "train.max_steps=2")
    first = weights(stopped)
    resumed = train(tmp_path / "stopped", model, data)
    expected, actual = weights(straight), weights(resumed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert any(not torch.equal(first[name], actual[name]) for name in first)  # steps 3 and 4
    base = set(names(model))
    for saved in (straight, straight / "checkpoint-2", resumed / "checkpoint-4"):
        assert set(names(saved)) == base
    evaluate(resumed, tmp_path)


@pytest.mark.parametrize("model_type", types(LORA))
def test_a_lora_adapter_is_evaluated_chats_and_is_merged_with_every_tensor(
    checkpoint: Checkpoint, tmp_path: Path, data: Path, model_type: str
) -> None:
    model = checkpoint(model_type)
    adapter = train(tmp_path / "run", model, data, lora=True)
    expected = set(names(adapter))
    assert any(".lora_A" in name for name in expected)
    assert set(names(adapter / "checkpoint-2")) == expected
    merged = tmp_path / "merged"
    done = run_command("export", str(adapter), "--output", str(merged), "--merge")
    assert done.exit_code == 0, done.output
    assert set(names(merged)) == set(names(model))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "full").mkdir()
    assert evaluate(adapter, tmp_path / "adapter") == evaluate(merged, tmp_path / "full")
    options = ("--max-new-tokens", "4", "--dtype", "float32", "--device", "cpu")
    image = ("--image", str(data / "0.png"), "--prompt", "What is it?")
    words = (*image, *options)
    answers = [
        CliRunner().invoke(build_app(["chat"]), ["chat", str(path), *words])
        for path in (adapter, merged)
    ]
    assert [answer.exit_code for answer in answers] == [0, 0], answers
    assert answers[0].stdout == answers[1].stdout


@pytest.mark.slow
def test_a_recipe_switches_models_by_path_and_data_alone(
    checkpoint: Checkpoint, tmp_path: Path, data: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(model="MODEL", data="DATA", lora=", lora: {r: 2}"))
    lines = (data / "pairs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "text.jsonl").write_text(2 * lines[3])
    for model_type in ("qwen2_vl", "internvl", "smolvlm", "llama"):
        model, output = checkpoint(model_type), tmp_path / model_type
        rows = tmp_path / "text.jsonl" if model_type == "llama" else data / "pairs.jsonl"
        done = run_command(
            "train", str(recipe), f"model.name_or_path={model}",
            f"data.sources=[{{path: {rows}}}]", f"train.output_dir={output}",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert any(".lora_B" in name for name in names(output))
