"""The code blocks of the README work."""

import json
import re
from pathlib import Path

import pytest
import yaml
from support.forked_runs import preload, run_ranks, unidpo_mm

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.plugins import load_family

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny LLaVA and pairs to replace the model and the data of the README."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("readme")
    load_family("llava").tiny(folder / "model")
    (folder / "images").mkdir()
    Image.new("RGB", (30, 40), (10, 200, 10)).save(folder / "images" / "a.png")
    rows = [
        {
            "prompt": f"What is {number}?",
            "chosen": "A square",
            "rejected": "Nothing",
            "score_chosen": 8,
            "score_rejected": 2,
            **({"images": ["a.png"]} if number % 2 else {}),
        }
        for number in range(8)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_the_recipe_loads(folder: Path):
    path = folder / "recipe.yaml"
    path.write_text(blocks("yaml")[0])
    recipe = load_recipe(path, checks=(check_loss, check_train))
    assert recipe.loss.name == "uni_dpo"


def test_the_recipe_is_checked_trains_and_resumes(folder: Path):
    recipe = yaml.safe_load(blocks("yaml")[0])
    recipe["model"] |= {"name_or_path": "model"}
    recipe["train"] |= {"use_cpu": True, "report_to": "none", "bf16": False}
    recipe["data"] |= {"eval_fraction": 0.3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    preload()
    commands = re.findall(
        r"^(unidpo-mm (?:data check|train) .*?)\s+#", "".join(blocks("bash")), re.M
    )
    assert len(commands) == 2
    for command in [*commands, commands[-1]]:
        arguments = command.split()[1:]
        (finished,) = run_ranks(unidpo_mm(*arguments), processes=1, cwd=folder)
        assert finished.code == 0, finished.output[-2000:]
    assert (folder / "out" / "adapter_model.safetensors").is_file()
    assert (folder / "out" / "processor_config.json").is_file()


def test_the_python_block_trains(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    code = blocks("python")[0].replace("Qwen/Qwen2-VL-2B-Instruct", str(folder / "model"))
    code = code.replace('output_dir="out"', 'output_dir="api", use_cpu=True, report_to="none"')
    dataset = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for row in dataset:
        row["images"] = [str(folder / "images" / name) for name in row.get("images", [])]
    names = {"dataset": dataset}
    exec(compile(code, "README.md", "exec"), names)
    assert names["trainer"].state.global_step > 0


def test_the_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in re.findall(r"^make ([a-z-]+)", "".join(blocks("bash")), re.M):
        assert re.search(rf"^{verb}:", makefile, re.M), verb
