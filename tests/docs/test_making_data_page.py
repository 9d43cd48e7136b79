"""The recipes and commands of docs/making_data.md run in the order of the page."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import make_image
from support.documented_commands import commands_of
from support.forked_runs import launch, preload
from support.markdown_blocks import ROOT, Block, blocks_of
from support.small_benchmarks import varied_checkpoint

from unidpo_mm.config.page import updated_page
from unidpo_mm.pipelines.keys_page import PAGE, tables
from unidpo_mm.pipelines.load import load_make_recipe

PAGE_PATH = ROOT / "docs" / PAGE
BLOCKS = blocks_of(PAGE_PATH)
QUICK = ("train.max_steps=1", "train.use_cpu=true", "train.report_to=none")
"""Overrides that make training quick."""
TINY = (
    "sample.max_new_tokens=4",
    "sample.truncated=keep",
    "model.dtype=float32",
    'score.brief.lacks="[aeiou]"',
    "pair.min_margin=0",
    "pair.balance_length=null",
)
"""Overrides with which a tiny model, whose responses are random characters, yields pairs."""


def blocks(language: str, text: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and text in block.text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a tiny model, pairs without scores, prompts and images."""
    os.environ["UNIDPO_MM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    preload()
    folder = tmp_path_factory.mktemp("page")
    varied_checkpoint(folder / "org" / "model", "llava")
    (folder / "images").mkdir()
    prompts: list[dict[str, Any]] = [{"prompt": f"What is {n}?"} for n in range(20)]
    for number, prompt in enumerate(prompts[:6]):
        make_image(number).save(folder / "images" / f"{number}.png")
        prompt["images"] = [f"{number}.png"]
    pairs = [
        {
            "prompt": f"What is {n} + 1?",
            "chosen": f"\\boxed{{{n + 1}}}",
            "rejected": "5",
            "answer": n,
        }
        for n in range(1, 9)
    ]
    for name, rows in (("prompts", prompts), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(folder: Path, *words: str) -> str:
    (end,) = launch(folder, *words)
    assert end.code == 0, f"{shlex.join(words)}: {end.output[-3000:]}"
    return end.output


def test_scores_for_data_that_have_none(folder: Path) -> None:
    (recipe,) = blocks("yaml", "responses: given")
    (folder / "make.yaml").write_text(recipe.text)
    (commands,) = blocks("bash", "unidpo-mm init")
    for words in commands_of(commands.text):
        run(folder, *words[1:], *(QUICK if words[1] == "train" else ()))
    assert (folder / "made/rows.jsonl").is_file()
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["loss"]["name"] == "uni_dpo"


def test_responses_of_the_model(folder: Path) -> None:
    (recipe,) = blocks("yaml", "agree:")
    (folder / "make.yaml").write_text(recipe.text)
    (commands,) = blocks("bash", "--pilot")
    for words in commands_of(commands.text):
        if words[0] == "unidpo-mm":  # the same under a launcher is tested in tests/pipelines
            run(folder, *words[1:], *TINY)
    assert (folder / "made/captions/rows.jsonl").is_file()
    assert (folder / "made/captions/pilot-16/made.html").is_file()
    (commands,) = blocks("bash", "--share")
    for words in commands_of(commands.text):
        words = [word.replace("2/8", "1/1") for word in words[1:]]
        run(folder, *words, *TINY, "output=made/shared")


def test_a_scorer_of_the_user(folder: Path) -> None:
    (scorer,) = blocks("python", "class Mentions")
    (folder / "mentions.py").write_text(scorer.text)
    recipe = {
        "output": "made/mentions",
        "prompts": {"sources": [{"path": "pairs.jsonl"}]},
        "sample": {"responses": "given"},
        "score": {"five": {"scorer": "./mentions.py", "word": "5"}},
        "pair": {"rule": "given"},
    }
    (folder / "mentions.yaml").write_text(yaml.safe_dump(recipe))
    run(folder, "data", "make", "mentions.yaml")


def test_rounds(folder: Path) -> None:
    (rounds,) = blocks("yaml", "replay:")
    (folder / "rounds.yaml").write_text(rounds.text)
    make = yaml.safe_load(blocks("yaml", "agree:")[0].text)
    make["sample"] |= {"max_new_tokens": 4, "truncated": "keep", "n": 4}
    make["pair"] = {"rule": "best_vs_worst"}
    make["score"]["brief"] |= {"lacks": "[aeiou]"}
    (folder / "make.yaml").write_text(yaml.safe_dump(make))
    train = {
        "model": {"name_or_path": "org/model", "lora": {"r": 2, "targets": "all-linear"}},
        "data": {"sources": [{"path": "made/rows.jsonl"}]},
        "loss": {"name": "uni_dpo"},
        "train": {"max_steps": 1, "use_cpu": True, "report_to": "none"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(train))
    output = run(folder, "rounds", "rounds.yaml")
    assert "The model of the last round" in output


FRAGMENTS = [
    block
    for block in blocks("yaml", "")
    if not {"output", "rounds"} & yaml.safe_load(block.text).keys()
]


@pytest.mark.parametrize("block", FRAGMENTS, ids=lambda block: block.place)
def test_parts_of_recipes_are_valid(block: Block, tmp_path: Path) -> None:
    base = {
        "output": "made",
        "prompts": {"sources": [{"path": "prompts.jsonl"}]},
        "sample": {"responses": "given"},
        "score": {"brief": {"scorer": "rules", "max_words": 5}},
    }
    (tmp_path / "make.yaml").write_text(yaml.safe_dump(base | yaml.safe_load(block.text)))
    load_make_recipe(tmp_path / "make.yaml")


RECIPES = {"text_judge": 50_000, "math_process": 80_000, "image_claims": 400_000}


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_recipes_cost(name: str) -> None:
    making = load_make_recipe(ROOT / "configs" / "data" / f"{name}.yaml")
    responses = 10_000 * making.recipe.sample.n
    units = [scorer.units(responses, 10_000) for scorer in making.scorers.values()]
    assert max(number for unit in units for number in unit.values()) == RECIPES[name]
    assert f"{RECIPES[name]:,}" in PAGE_PATH.read_text(encoding="utf-8")


def test_the_tables_are_up_to_date() -> None:
    page = PAGE_PATH.read_text(encoding="utf-8")
    assert page == updated_page(page, tables()), "run python -m unidpo_mm.pipelines.keys_page docs"
