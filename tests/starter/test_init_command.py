"""`unidpo-mm init` writes a recipe that passes the data check and trains."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from support.commands import run_command

from unidpo_mm.config import load_recipe

Checkpoint = Callable[[str], Path]


def pairs(folder: Path, count: int, *, images: bool = False, **fields: Any) -> Path:
    """Write pairs; fields that are functions get the number of the row."""
    for number in range(3):
        make_image(number).save(folder / f"{number}.png")
    rows = []
    for number in range(count):
        row = {"prompt": f"What is {number}?", "chosen": "Red", "rejected": "A dog"}
        if images:
            row |= {"prompt": f"<image>What is {number}?", "images": [f"{number % 3}.png"]}
        row |= {name: f(number) if callable(f) else f for name, f in fields.items()}
        rows.append(json.dumps(row))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(rows))
    return path


SCORES = {
    "score_chosen": lambda number: 4 + number % 2,
    "score_rejected": lambda number: 1 + number % 3,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipe_passes_the_data_check_and_trains(folder: Path, checkpoint: Checkpoint) -> None:
    data = pairs(folder, 60, images=True, **SCORES)
    done = run_command("init", str(data), "--model", str(checkpoint("llava")))
    assert done.exit_code == 0, done.output
    assert "the scores lie between 1 and 5; their scale cannot be known" in done.output
    assert "unidpo-mm train recipe.yaml --dry-run" in done.output
    text = Path("recipe.yaml").read_text()
    assert "# family llava (llava)" in text
    recipe = load_recipe("recipe.yaml")
    assert recipe.loss.parameters == {"beta": 2.0, "eta": 0.7, "tau_good": "median"}
    assert recipe.data.eval_fraction == 0.1
    assert recipe.data.max_length == 256
    assert recipe.model.lora is not None
    assert run_command("data", "check", "recipe.yaml").exit_code == 0
    overrides = ("train.max_steps=1", "train.report_to=none", "train.output_dir=out")
    done = run_command("train", "recipe.yaml", *overrides)
    assert done.exit_code == 0, done.output
    assert (folder / "out" / "adapter_model.safetensors").is_file()


def test_missing_images_are_named(folder: Path, checkpoint: Checkpoint) -> None:
    data = pairs(folder, 20, images=True, **SCORES)
    for image in folder.glob("*.png"):
        image.unlink()
    done = run_command("init", str(data), "--model", str(checkpoint("llava")))
    assert done.exit_code == 0, done.output
    assert "no row could be encoded, such as" in done.output
    assert "0.png' does not exist" in done.output


def test_data_without_scores_get_a_loss_that_needs_none(
    folder: Path, checkpoint: Checkpoint
) -> None:
    data = pairs(folder, 12)
    done = run_command("init", str(data), "--model", str(checkpoint("llama")))
    assert "12 rows are too few to hold some out" in done.output
    recipe = load_recipe("recipe.yaml")
    assert (recipe.loss.name, recipe.data.eval_fraction) == ("dpo", 0.0)
    assert "uni_dpo needs scores, and the data have none" in Path("recipe.yaml").read_text()


@pytest.mark.parametrize(("scale", "eta"), [(0.1, 5.8), (20.0, 0.029)])
def test_the_slope_follows_the_margins(folder: Path, scale: float, eta: float) -> None:
    scores = {name: lambda n, f=f: scale * f(n) for name, f in SCORES.items()}
    assert run_command("init", str(pairs(folder, 40, **scores))).exit_code == 0
    recipe = load_recipe("recipe.yaml")
    assert recipe.loss.parameters["eta"] == pytest.approx(eta, rel=0.01)


def test_pairs_without_a_score_get_a_fixed_weight(folder: Path) -> None:
    first = pairs(folder, 20, **SCORES).rename(folder / "scored.jsonl")
    mixed = first.read_text() + "\n" + pairs(folder, 5).read_text()
    (folder / "mixed.jsonl").write_text(mixed)
    done = run_command("init", "mixed.jsonl", "--output", "mixed.yaml")
    assert done.exit_code == 0, done.output
    (source,) = load_recipe("mixed.yaml").data.sources
    assert source.scores.missing == 0.5
    assert "5 pairs without scores get the weight 0.5" in Path("mixed.yaml").read_text()


def test_without_a_model_the_recipe_has_a_placeholder(folder: Path) -> None:
    done = run_command("init", str(pairs(folder, 20, images=True, **SCORES)))
    assert "to do: recipe.yaml line 3, key 'model.name_or_path'" in done.output
    assert done.exit_code == 0
    assert load_recipe("recipe.yaml").data.max_length == 2048


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pairs.jsonl", "--model", "MODEL"), "the data have images, and .* is a text model"),
        (("pairs.jsonl", "--output", "pairs.jsonl"), "'pairs.jsonl' already exists"),
        (("absent.jsonl",), "absent.jsonl"),
        (("bad.jsonl",), "bad.jsonl row 1.*field 'chosen'"),
        (("pairs.jsonl", "--model", "empty"), "empty"),
    ],
    ids=["text model", "existing output", "no data", "bad row", "no model"],
)
def test_what_cannot_work_is_refused(
    folder: Path, checkpoint: Checkpoint, arguments: tuple[str, ...], message: str
) -> None:
    pairs(folder, 20, images=True, **SCORES)
    (folder / "bad.jsonl").write_text('{"prompt": "a", "chosen": "", "rejected": "b"}')
    (folder / "empty").mkdir()
    words = [str(checkpoint("llama")) if word == "MODEL" else word for word in arguments]
    done = run_command("init", *words)
    assert done.exit_code == 2, done.output
    assert re.search(message, done.output), done.output
    assert not (folder / "recipe.yaml").exists()
