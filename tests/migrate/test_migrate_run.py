"""Migrated recipes train, and so does the script of the page."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_files, check_loss, check_train
from unidpo_mm.migrate import migrate
from unidpo_mm.training.run import train_from_recipe

Checkpoint = Callable[[str], Path]
PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"

FACTORY = """
model_name_or_path: {model}
image_max_pixels: 4096
image_min_pixels: 784
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 4
lora_target: q_proj,v_proj
pref_loss: sigmoid
pref_ftx: 0.1
dataset: shapes
dataset_dir: data
cutoff_len: 512
output_dir: out
overwrite_output_dir: true
per_device_train_batch_size: 4
learning_rate: 1.0e-3
max_steps: 2
warmup_ratio: 0.5
val_size: 0.25
eval_strategy: steps
eval_steps: 2
report_to: none
use_cpu: true
disable_tqdm: true
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pairs about images, registered for LLaMA-Factory, and pairs of text."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    columns = {name: name for name in ("prompt", "chosen", "rejected", "images")}
    entry = {"file_name": "shapes.json", "ranking": True, "columns": columns}
    (data / "dataset_info.json").write_text(json.dumps({"shapes": entry}))
    rows = []
    for number in range(8):
        Image.new("RGB", (40, 30), (30 * number, 90, 10)).save(data / f"{number}.png")
        pair = {"chosen": "A red square", "rejected": "Two circles"}
        rows.append({"prompt": f"<image>What is {number}?", "images": [f"{number}.png"], **pair})
    (data / "shapes.json").write_text(json.dumps(rows))
    plain = [
        {"prompt": row["prompt"].removeprefix("<image>"), "chosen": "A square", "rejected": "Two"}
        | {"score_chosen": 4.0, "score_rejected": 1.0 + number / 8}
        for number, row in enumerate(rows)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, plain)))
    return tmp_path


def test_migrated_recipe_trains(checkpoint: Checkpoint, directory: Path) -> None:
    (directory / "config.yaml").write_text(FACTORY.format(model=checkpoint("qwen2_vl")))
    result = migrate(directory / "config.yaml")
    (directory / "recipe.yaml").write_text(result.recipe)
    recipe = load_recipe(directory / "recipe.yaml", checks=(check_files, check_loss, check_train))
    trainer = train_from_recipe(recipe)
    assert trainer.state.global_step == 2
    assert (len(trainer.parts.train_rows), len(trainer.parts.eval_rows)) == (6, 2)
    names = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert names
    assert all("language_model" in name and "lora" in name for name in names)
    assert {name.split(".")[-4] for name in names} <= {"q_proj", "v_proj"}
    loss = json.loads((directory / "out" / "run.json").read_text())["loss"]
    assert loss["name"] == "mpo"
    assert (directory / "out" / "adapter_model.safetensors").is_file()


def test_script_of_the_page_trains(checkpoint: Checkpoint, directory: Path) -> None:
    before, after = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "DPOTrainer(" in before
    model = str(checkpoint("llama"))
    script = after.replace("Qwen/Qwen2.5-0.5B-Instruct", model)
    script = script.replace("bf16=True", "bf16=False, use_cpu=True, disable_tqdm=True")
    script = script.replace("eval_fraction=0.1", "eval_fraction=0.3")
    scope: dict[str, Any] = {}
    exec(script, scope)
    assert scope["trainer"].state.global_step > 0
    assert scope["trainer"].args.loss_type == "uni_dpo"
