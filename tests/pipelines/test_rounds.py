"""Rounds of sampling, scoring and training: kills, references, prompts, replayed rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.commands import run_command
from support.forked_runs import Kill, launch
from support.small_benchmarks import varied_checkpoint

pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture(scope="module")
def write(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes the recipes of two rounds to a directory."""
    data = tmp_path_factory.mktemp("data")
    prompts = [{"prompt": f"What is number {n}?"} for n in range(16)]
    (data / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    scores = {"score_chosen": 1.0, "score_rejected": 0.0}
    held_out: list[dict[str, Any]] = [
        {"prompt": f"Say {n}", "chosen": f"yes {n}", "rejected": "no", **scores} for n in range(4)
    ]
    (data / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))

    def write_recipes(folder: Path, **keys: Any) -> Path:
        make = {
            "output": "unused",
            "prompts": {"sources": [{"path": str(data / "prompts.jsonl")}]},
            "model": {"name_or_path": "unused", "dtype": "float32"},
            "sample": {"n": 4, "max_new_tokens": 4, "truncated": "keep"},
            "score": {"brief": {"scorer": "rules", "matches": "[a-m]", "lacks": "[aeiou]"}},
        }
        train = {
            "model": {
                "name_or_path": "unused",
                "dtype": "float32",
                "lora": {"r": 2, "targets": "all-linear"},
            },
            "data": {
                "sources": [{"path": "unused"}],
                "eval_sources": [{"path": str(data / "held_out.jsonl")}],
            },
            "loss": {"name": "uni_dpo"},
            "train": {
                "max_steps": 2,
                "learning_rate": 0.01,
                "per_device_train_batch_size": 2,
                "eval_strategy": "epoch",
                "eval_generations": 0,
                "use_cpu": True,
                "report_to": "none",
            },
        }
        rounds = {
            "rounds": 2,
            "output": "out",
            "start": str(model),
            "make": "make.yaml",
            "train": "train.yaml",
            "replay": 0.5,
            **keys,
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("make", make), ("train", train), ("rounds", rounds)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return folder

    return write_recipes


def run(folder: Path, **options: Any) -> int | None:
    (end,) = launch(folder, "rounds", "rounds.yaml", **options)
    assert "Traceback" not in end.output, end.output
    assert end.code == 0 or end.signal, end.output
    return -end.signal if end.signal else end.code


def adapter(folder: Path, number: int) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / f"out/round-{number}/train/adapter_model.safetensors"))


@pytest.fixture(scope="module")
def straight(write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("straight"))
    assert run(folder) == 0
    return folder


def test_two_rounds(straight: Path, model: Path) -> None:
    ids = []
    assert (straight / "out/round-2/made/made.html").is_file()
    for number in (1, 2):
        folder = straight / f"out/round-{number}"
        lines = (folder / "made/prompts.jsonl").read_text().splitlines()
        ids.append({json.loads(line)["id"] for line in lines})
        record = json.loads((folder / "round.json").read_text())["numbers"]
        assert 0 < record["share of prompts with pairs"] <= 1
        assert "chosen log-prob change" in record
        run_record = json.loads((folder / "train/adapter_config.json").read_text())
        assert run_record["base_model_name_or_path"] == str(model)
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 16
    replayed = (straight / "out/round-2/replay.jsonl").read_text().splitlines()
    assert 0 < len(replayed) <= 4
    first, second = adapter(straight, 1), adapter(straight, 2)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    recipe = yaml.safe_load((straight / "out/round-2/train/recipe.yaml").read_text())
    assert recipe["train"]["reference"] == "lora_off"
    assert recipe["model"]["name_or_path"].endswith("out/round-1/train")


@pytest.mark.slow
def test_two_processes_agree_on_when_to_stop(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path, stop={"yield_below": 0.05}, replay=0.0)
    ends = launch(folder, "rounds", "rounds.yaml", processes=2)
    assert [end.code for end in ends] == [0, 0], ends[0].output
    for number in (1, 2):
        record = json.loads((folder / f"out/round-{number}/round.json").read_text())
        assert record["numbers"]["share of prompts with pairs"] > 0.05
        assert "reward accuracy" in record["numbers"]


STAGES = (
    "round-1/made/responses",
    "round-1/made/scores/brief",
    "round-1/train/.saving",
    "round-2/made/responses",
    "round-2/made/scores/brief",
    "round-2/train/.saving",
)


@pytest.mark.parametrize(
    "stage",
    [pytest.param(name, marks=[] if n == 3 else pytest.mark.slow) for n, name in enumerate(STAGES)],
)
def test_a_kill_in_any_stage_changes_no_weight(
    write: Callable[..., Path], tmp_path: Path, straight: Path, stage: str
) -> None:
    folder = write(tmp_path)
    assert run(folder, kill=Kill(match=stage, touch=2)) == -9
    assert run(folder) == 0
    expected, weights = adapter(straight, 2), adapter(folder, 2)
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def test_the_reference_start_needs_an_adapter(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path)
    train = yaml.safe_load((folder / "train.yaml").read_text())
    train["model"]["lora"] = None
    (folder / "train.yaml").write_text(yaml.safe_dump(train))
    (end,) = launch(folder, "rounds", "rounds.yaml")
    assert end.code == 2
    assert "Set model.lora in the recipe, or reference: previous" in end.output


def test_bad_recipes_are_reported_together(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path)
    make = yaml.safe_load((folder / "make.yaml").read_text())
    make["sample"]["responses"] = "given"
    (folder / "make.yaml").write_text(yaml.safe_dump(make))
    end = run_command("rounds", str(folder / "rounds.yaml"), "replay=2", "stops={}")
    assert end.exit_code == 2
    assert "replay" in end.output
    assert "unknown key 'stops', did you mean 'stop'?" in end.output
    end = run_command("rounds", str(folder / "rounds.yaml"))
    assert end.exit_code == 2
    assert "make: sample.responses" in end.output


def test_it_stops_when_too_few_prompts_have_pairs(
    write: Callable[..., Path], tmp_path: Path, straight: Path
) -> None:
    folder = write(tmp_path, stop={"yield_below": 1.0})
    (end,) = launch(folder, "rounds", "rounds.yaml")
    record = json.loads((straight / "out/round-1/round.json").read_text())["numbers"]
    if record["share of prompts with pairs"] < 1:
        assert "no further round" in end.output
        assert not (folder / "out/round-2").exists()
