"""Every fenced block of README, CONTRIBUTING and docs/ is executed, checked, or marked as not run.

All blocks share one directory with two tiny models, pairs with images, and the files that pages
define, which start with a comment such as ``# my_loss.py``.
"""

import importlib
import importlib.util
import json
import os
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.adversarial_responses import red_image
from support.commands import run_command
from support.documented_commands import check_command, commands_of
from support.documented_messages import SITUATIONS
from support.forked_runs import preload, run_ranks, unidpo_mm
from support.markdown_blocks import ROOT, Block, blocks_of, documentation

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.plugins import CALLBACKS, FAMILIES, FORMATS, LOSSES, OBSERVERS, load, load_family
from unidpo_mm.sweep.plan import check_arms, read_sweep

BLOCKS = [block for page in documentation() for block in blocks_of(page)]
FILE = re.compile(r"^# (\w+\.(?:py|yaml))\n")
HUB_NAMES = {
    "llava-hf/llava-1.5-7b-hf": "llava",
    "Qwen/Qwen2-VL-2B-Instruct": "llava",
    "Qwen/Qwen2.5-0.5B-Instruct": "text",
}
"""Hub name on a page -> directory of the tiny model that replaces it."""
SECTIONS = {"model", "data", "loss", "train", "run"}
BASE = {
    "model": {"name_or_path": "llava"},
    "data": {"sources": [{"path": "pairs.jsonl", "images": "images"}], "eval_fraction": 0.2},
    "loss": {"name": "uni_dpo"},
    "train": {"output_dir": "out", "use_cpu": True, "report_to": "none"},
}
QUICK: dict[str, Any] = {
    "use_cpu": True,
    "report_to": "none",
    "max_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "eval_generations": 0,
}
"""Arguments added to `UniDPOConfig`, so that a block trains for one step."""
EXPORTS = {kind.export: kind for kind in (LOSSES, FAMILIES, FORMATS, CALLBACKS, OBSERVERS)}
GROUPS = {kind.group for kind in EXPORTS.values()}
COMMANDS_WITHOUT_MODEL = [
    ("list", "losses"),
    ("cache", "info"),
    ("eval", "list"),
    ("sweep", "sweep.yaml", "--dry-run"),
]
PATH = re.compile(r"(?<![\w./])(?:[\w.]+/)+[\w.]*")


def blocks(*languages: str) -> list[Any]:
    """Return the blocks in these languages as test parameters, except those marked as not run."""
    return [
        pytest.param(block, id=block.place)
        for block in BLOCKS
        if block.language in languages and block.mark != "not run"
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with tiny models, data, and the files that pages define."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pages")
    load_family("llava").tiny(folder / "llava")
    load_family("text").tiny(folder / "text", model_type="llama")
    (folder / "images").mkdir()
    Image.new("RGB", (30, 40), (10, 200, 10)).save(folder / "images" / "a.png")
    pairs = [
        {
            "prompt": f"What is {number}?",
            "chosen": "A square",
            "rejected": "Nothing",
            "score_chosen": 8 - number % 3,
            "score_rejected": 2,
        }
        for number in range(12)
    ]
    _write_rows(folder / "text_pairs.jsonl", pairs)
    for row in pairs[::2]:
        row |= {"prompt": "<image>" + str(row["prompt"]), "images": ["a.png"]}
    _write_rows(folder / "pairs.jsonl", pairs)
    _write_rows(folder / "held_out.jsonl", pairs[:4])
    _write_rows(
        folder / "rows.jsonl",
        [{"question": "What?", "good": "One", "bad": "Two"} for _ in range(2)],
    )
    table = f"index\timage\tquestion\tanswer\tcategory\n0\t{red_image(9)}\tRed?\tYes\tpopular\n"
    (folder / "POPE.tsv").write_text(table)
    for block in BLOCKS:
        if block.language in ("python", "yaml") and (name := FILE.match(block.text)):
            (folder / name[1]).write_text(block.text)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(BASE))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """Train a model on the command line with the observer and callback that pages define."""
    preload()
    plugins = [
        "'run.observers={./my_observer.py: {file: weights.jsonl}}'",
        "'run.callbacks={./my_callback.py: {every: 1}}'",
    ]
    options = "train.max_steps=2 train.logging_steps=1 train.save_strategy=no"
    output = _run(f"train recipe.yaml {options} {' '.join(plugins)}", folder)
    assert "step 2: reward margin" in output
    weights = [json.loads(line) for line in (folder / "weights.jsonl").read_text().splitlines()]
    assert weights
    assert all(0.5 < w_qual < 1 for _, w_qual, _ in weights)
    return folder


def _run(command: str, folder: Path) -> str:
    """Run `unidpo-mm` with tiny models in a forked child, and return its output."""
    for name, directory in HUB_NAMES.items():
        command = command.replace(name, directory)
    (done,) = run_ranks(unidpo_mm(*shlex.split(command)), processes=1, cwd=folder)
    assert done.code == 0, f"{command}: {done.output[-3000:]}"
    return done.output


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test in the shared directory, from which it can import modules."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_every_block_has_a_check() -> None:
    """Blocks have a known language, and the comment above them is known."""
    languages = {"bash", "json", "python", "text", "toml", "yaml"}
    assert {block.language for block in BLOCKS if block.mark != "not run"} <= languages
    assert {block.mark for block in BLOCKS} <= {"", "message", "not run", "source", "tree"}
    assert all(len(block.value) > 10 for block in BLOCKS if block.mark == "not run")


@pytest.mark.parametrize("block", blocks("yaml"))
def test_recipes_and_sweeps_load(block: Block, in_folder: Path) -> None:
    content = yaml.safe_load(block.text)
    path = in_folder / "block.yaml"
    if {"arms", "factors"} & content.keys():
        path.write_text(block.text)
        sweep = read_sweep(path)
        check_arms(sweep, [check_loss])
        return
    if block.page == "docs/making_data.md":  # run by test_making_data_page.py
        return
    assert set(content) <= SECTIONS
    merged = {name: BASE.get(name, {}) | content.get(name, {}) for name in SECTIONS}
    if "name" in content.get("loss", {}):
        merged["loss"] = content["loss"]
    path.write_text(yaml.safe_dump(merged))
    recipe = load_recipe(path, checks=(check_loss, check_train))
    for section in content:
        assert getattr(recipe, section) is not None


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_exist_with_their_options(block: Block, folder: Path) -> None:
    for words in commands_of(block.text):
        check_command(words, folder)


def test_the_steps_of_the_first_page_work_in_this_order(folder: Path) -> None:
    """The steps lead from data to a recipe, a check, a plan, training, evaluation and an export."""
    preload()
    page = [block for block in BLOCKS if block.page == "docs/index.md" and block.mark == ""]
    commands = [
        words[1:]
        for block in page
        if block.language == "bash"
        for words in commands_of(block.text)
        if words[0] == "unidpo-mm" and words[1] != "chat"  # which waits for messages
    ]
    run = folder / "first"
    run.mkdir()
    for name in ("images", "llava", "pairs.jsonl", "held_out.jsonl"):
        (run / name).symlink_to(folder / name)
    assert [words[0] for words in commands] == [
        "init", "data", "train", "train", "eval", "export",
    ]  # fmt: skip
    for words in commands:
        _run(shlex.join(words), run)
    assert (run / "check.html").is_file()
    assert (run / "merged" / "config.json").is_file()


def test_the_recipe_of_the_readme_is_checked_trains_and_resumes(folder: Path) -> None:
    preload()
    readme = [block for block in BLOCKS if block.page == "README.md"]
    (recipe,) = [yaml.safe_load(block.text) for block in readme if block.language == "yaml"]
    recipe["model"]["name_or_path"] = "llava"
    recipe["train"] |= {"use_cpu": True, "report_to": "none", "bf16": False}
    recipe["data"]["eval_fraction"] = 0.3
    run = folder / "readme"
    run.mkdir()
    for name in ("images", "llava", "pairs.jsonl"):
        (run / name).symlink_to(folder / name)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    commands = [shlex.join(words[1:]) for block in readme for words in commands_of_block(block)]
    check, train = "data check recipe.yaml", "train recipe.yaml"
    assert {check, train} <= set(commands)
    outputs = [_run(command, run) for command in (check, train, train)]
    assert "holds the finished run" in outputs[2]
    assert (run / "out" / "adapter_model.safetensors").is_file()
    assert (run / "out" / "processor_config.json").is_file()


@pytest.mark.parametrize("command", COMMANDS_WITHOUT_MODEL, ids=" ".join)
def test_commands_without_a_model_run(command: tuple[str, ...], in_folder: Path) -> None:
    """These commands are on a page and need neither a model nor a network."""
    documented = [words for block in BLOCKS for words in commands_of_block(block)]
    assert ["unidpo-mm", *command] in documented
    assert run_command(*command).exit_code == 0


def commands_of_block(block: Block) -> list[list[str]]:
    return commands_of(block.text) if block.language == "bash" and not block.mark else []


@pytest.mark.parametrize(
    "command",
    [
        "unidpo-mm trian recipe.yaml",
        "unidpo-mm train recipe.yaml --check-all",
        "unidpo-mm train recipe.yaml train.learning_rat=1",
        "unidpo-mm train recipe.yaml loss.gamma=-1",
        "unidpo-mm eval",
        "unidpo-mm export out",
        "unidpo-mm list losses --models",
        "unidpo-mm eval score -b poope --data x --predictions y",
        "python -m unidpo_mm.absent",
        "torchrun --procs 2 -m unidpo_mm train recipe.yaml",
        "accelerate launch --config_file absent.yaml -m unidpo_mm train recipe.yaml",
        "make everything",
        "pip install 'unidpo-mm[absent]'",
        "wget file",
    ],
)
def test_mistakes_in_commands_are_noticed(command: str, folder: Path) -> None:
    (words,) = commands_of(command)
    with pytest.raises((Exception, SystemExit)):  # of click, argparse, recipes, or an assertion
        check_command(words, folder)


@pytest.mark.parametrize("block", blocks("json"))
def test_json_is_a_row(block: Block) -> None:
    row = json.loads(block.text)
    assert {"prompt", "chosen", "rejected"} <= row.keys()


@pytest.mark.parametrize("block", blocks("toml"))
def test_entry_points_have_existing_groups(block: Block) -> None:
    points = tomllib.loads(block.text)["project"]["entry-points"]
    assert points.keys() <= GROUPS


@pytest.mark.parametrize("block", blocks("text"))
def test_text_is_a_message_or_a_diagram_of_existing_files(block: Block) -> None:
    """Other tests check the content of messages and of the repository tree."""
    if block.mark == "message":
        assert block.value in SITUATIONS
    if block.mark in ("message", "tree"):
        return
    paths = PATH.findall(block.text)
    assert paths, "the block is neither a message nor a diagram with files"
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "unidpo_mm" / path).exists(), path


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: Block, in_folder: Path, request: pytest.FixtureRequest) -> None:
    if re.search(r'\bout[/"]', block.text):
        request.getfixturevalue("trained")
    if block.mark == "source":
        source = (ROOT / block.value).read_text(encoding="utf-8")
        assert textwrap.indent(block.text, "    ") in source, f"not part of {block.value}"
        return
    if name := FILE.match(block.text):
        _load_file(in_folder / name[1])
        return
    if "\nfrom ." in block.text:  # a module of the package
        _load_module(block.text, in_folder)
        return
    names = {"dataset": _rows(in_folder), **_names_of(block)}
    exec(compile(_offline(block.text), block.place, "exec"), names)
    if "trainer" in names:
        assert names["trainer"].state.global_step > 0


def _load_file(path: Path) -> None:
    """Load a file as the plugin that it exports, or run it."""
    from unidpo_mm_eval.plugins import BENCHMARKS, SCORERS

    kinds = EXPORTS | {"BENCHMARK": BENCHMARKS, "SCORER": SCORERS}
    text = path.read_text(encoding="utf-8")
    exports = [kind for name, kind in kinds.items() if re.search(rf"^{name} = ", text, re.M)]
    if not exports:
        assert importlib.import_module(path.stem)
    for kind in exports:
        assert load(kind, str(path))


def _load_module(text: str, folder: Path) -> None:
    path = folder / "module_of_a_page.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("unidpo_mm.losses.module_of_a_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.LOSS.compute


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for row in rows:
        row["images"] = [str(folder / "images" / name) for name in row.get("images", [])]
    return rows


def _names_of(block: Block) -> dict[str, Any]:
    """Return the names that a block uses without importing them."""
    from unidpo_mm import UniDPOConfig, UniDPOTrainer

    names: dict[str, Any] = {"QUICK": QUICK}
    if "import UniDPO" not in block.text:
        names |= {"UniDPOConfig": UniDPOConfig, "UniDPOTrainer": UniDPOTrainer}
    return names


def _offline(code: str) -> str:
    """Return code that uses tiny models and trains briefly on a CPU."""
    if "Qwen/Qwen2.5-0.5B" in code:
        code = code.replace("pairs.jsonl", "text_pairs.jsonl")
    for name, directory in HUB_NAMES.items():
        code = code.replace(f'"{name}"', f'"{os.path.abspath(directory)}"')  # noqa: PTH100 - keeps links
    return code.replace("UniDPOConfig(", "UniDPOConfig(**QUICK, ")
