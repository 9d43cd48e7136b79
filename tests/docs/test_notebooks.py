"""The notebooks in `examples/` run with a tiny model in place of the one that they name."""

import ast
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from support.language import identifier_problems, text_problems
from support.markdown_blocks import ROOT

import unidpo_mm

EXAMPLES = ROOT / "examples"
TUNE, COMPARE = EXAMPLES / "tune_a_vlm.ipynb", EXAMPLES / "compare_two_checkpoints.ipynb"
STEPS = 3
BUILD = f"""
import sys
from pathlib import Path

sys.path.insert(0, {str(ROOT / "tests")!r})
from builders import tiny_checkpoint

tiny_checkpoint(Path("tiny"), "qwen2_vl")
"""
"""A cell that writes the tiny model: the process of the test need not import torch."""
RESULTS = """
import json
import unidpo_mm

names = ("history", "before", "after", "reloaded")
print(json.dumps({"package": unidpo_mm.__file__, **{name: globals()[name] for name in names}}))
"""
"""A cell that prints variables of the first notebook for the test."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which both run: the second compares what the first trains."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def executed(folder: Path) -> dict[Path, list[Any]]:
    """Return the cells of both notebooks with their outputs.

    Both are executed in one kernel, whose variables are deleted in between: importing torch and
    transformers twice would take longer than all the rest.
    """
    model = str(folder / "tiny")
    first = cells_with(TUNE, {"MODEL": model, "STEPS": STEPS, "LEARNING_RATE": 0.02})
    first = [new_code_cell(BUILD), new_code_cell("%reset -f"), *first, new_code_cell(RESULTS)]
    second = cells_with(COMPARE, {"BEFORE": model, "MAX_NEW_TOKENS": 4})
    client = NotebookClient(
        new_notebook(cells=[*first, new_code_cell("%reset -f"), *second]),
        timeout=None,  # the limit is that of pytest
        startup_timeout=600,
        resources={"metadata": {"path": str(folder)}},
    )
    client.create_kernel_manager()
    # without the directories of installed kernels, the kernel is this interpreter
    client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    directories = {name: str(folder / name) for name in ("UNIDPO_MM_CACHE", "IPYTHONDIR")}
    client.execute(env=os.environ | directories)  # raises if a cell fails
    return {TUNE: first, COMPARE: second}


def cells_with(path: Path, settings: dict[str, Any]) -> list[Any]:
    """Return the cells of a notebook, with other values of the variables in its first code cell."""
    cells: list[Any] = nbformat.read(path, as_version=4).cells
    (place,) = [n for n, cell in enumerate(cells) if "parameters" in tags_of(cell)]
    assigned = {
        node.id
        for node in ast.walk(ast.parse(cells[place].source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert settings.keys() <= assigned
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    return [*cells[: place + 1], new_code_cell(lines), *cells[place + 1 :]]


def tags_of(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def outputs_of(cells: list[Any], kind: str) -> list[str]:
    """Return all outputs of a kind, such as ``image/png``."""
    return [
        output.data[kind]
        for cell in cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_committed_notebooks_are_clean(path: Path) -> None:
    assert path in (TUNE, COMPARE), "this notebook has no test"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count]
    assert tags_of(code[0]) == ["parameters"]
    assert "pip install" in notebook.cells[0].source
    for cell in notebook.cells:
        check = identifier_problems if cell.cell_type == "code" else text_problems
        assert not list(check(cell.source))


@pytest.mark.parametrize("path", [TUNE, COMPARE], ids=lambda path: path.name)
def test_files_in_the_text_exist(path: Path) -> None:
    """Files are those of the repository, or other notebooks."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    names = re.findall(r"`([\w/]+\.(?:md|ipynb))`", text)
    assert names
    for name in names:
        assert (ROOT / name).is_file() or (EXAMPLES / name).is_file(), name


@pytest.mark.slow
def test_the_notebook_tunes_a_model(executed: dict[Path, list[Any]], folder: Path) -> None:
    *cells, last = executed[TUNE]
    results = json.loads(last.outputs[-1].text)
    assert results["package"] == unidpo_mm.__file__
    losses = [log["loss"] for log in results["history"] if "loss" in log]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    held_out = [log for log in results["history"] if "eval_rewards/margins" in log]
    assert held_out[0]["step"] == 0
    assert held_out[0]["eval_rewards/margins"] == 0
    assert held_out[-1]["step"] == STEPS
    assert held_out[-1]["eval_rewards/margins"] != 0
    assert len(outputs_of(cells, "image/png")) == 4  # rows, curves, weights, held-out image
    assert (folder / "runs" / "shapes" / "adapter_model.safetensors").is_file()
    assert results["after"] != results["before"]
    assert results["reloaded"] == results["after"]


@pytest.mark.slow
def test_the_notebook_compares_the_model_before_and_after(
    executed: dict[Path, list[Any]], folder: Path
) -> None:
    cells = executed[COMPARE]
    questions, pairs, responses = outputs_of(cells, "text/markdown")
    number = r"-?\d+\.\d\d"
    interval = rf"{number} to {number}"
    assert re.search(r"^\| accuracy \| after \|", questions, re.M)
    assert "n = 36 in 12 clusters" in questions
    assert re.search(
        rf"^\| mean_margin \| before \| {number} \| {interval} \|  \|  \|$", pairs, re.M
    )
    difference = r"[+-]\d+\.\d\d \| [+-]\d+\.\d\d to [+-]\d+\.\d\d"
    assert re.search(rf"^\| mean_margin \| after \|.* \| {difference} \|$", pairs, re.M)
    assert "n = 24 in 12 clusters" in pairs
    assert len(responses.splitlines()) == 8
    assert len(outputs_of(cells, "image/png")) == 1
    for name in ("pope.html", "preferences.html", "after/pope.jsonl"):
        assert (folder / "runs" / "comparison" / name).is_file()
