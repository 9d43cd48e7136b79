"""The code blocks of the README work."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from support.forked_runs import preload, run_ranks, unidpo_mm

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.plugins import load_family
from unidpo_mm.records import PairLogps, SequenceLogps

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


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_recipes_load(folder: Path, number: int):
    path = folder / "recipe.yaml"
    path.write_text(blocks("yaml")[number])
    recipe = load_recipe(path, checks=(check_loss, check_train))
    assert recipe.loss.name == "uni_dpo"


def test_the_first_recipe_trains_and_resumes(folder: Path):
    recipe = yaml.safe_load(blocks("yaml")[0])
    recipe["model"] |= {"name_or_path": "model"}
    recipe["train"] |= {"use_cpu": True, "report_to": "none", "bf16": False}
    recipe["data"] |= {"eval_fraction": 0.3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    preload()
    for command in re.findall(r"^(unidpo-mm train .*?)\s+#", "".join(blocks("bash")), re.M):
        arguments = command.split()[1:]
        (finished,) = run_ranks(unidpo_mm(*arguments), processes=1, cwd=folder)
        assert finished.code == 0, finished.output[-2000:]
    assert (folder / "out" / "adapter_model.safetensors").is_file()
    assert (folder / "out" / "processor_config.json").is_file()


def test_the_python_block_trains(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    code = blocks("python")[0].replace("llava-hf/llava-1.5-7b-hf", str(folder / "model"))
    code = code.replace('output_dir="out"', 'output_dir="api", use_cpu=True, report_to="none"')
    dataset = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for row in dataset:
        row["images"] = [str(folder / "images" / name) for name in row.get("images", [])]
    names = {"dataset": dataset}
    exec(compile(code, "README.md", "exec"), names)
    assert names["trainer"].state.global_step > 0


def test_the_loss_block_is_a_loss(tmp_path: Path):
    path = tmp_path / "hinge_example.py"
    path.write_text(blocks("python")[1])
    spec = importlib.util.spec_from_file_location("unidpo_mm.losses.hinge_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def side(value: float) -> SequenceLogps:
        return SequenceLogps(torch.tensor([value * 4]), torch.tensor([4.0]))

    pairs = PairLogps(
        policy_chosen=side(-1.0),
        policy_rejected=side(-1.2),
        reference_chosen=side(-1.1),
        reference_rejected=side(-1.1),
        score_chosen=torch.tensor([1.0]),
        score_rejected=torch.tensor([0.0]),
        weight=torch.ones(1),
    )
    output = module.LOSS.compute(pairs, module.LOSS.config())
    assert output.per_pair.item() == pytest.approx(1 - 2 * 0.2)


def test_the_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in re.findall(r"^make ([a-z-]+)", "".join(blocks("bash")), re.M):
        assert re.search(rf"^{verb}:", makefile, re.M), verb
