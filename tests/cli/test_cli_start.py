"""The command line starts fast: heavy packages are imported only when they are needed."""

import resource
import subprocess
import sys

import pytest
from support.forked import run_forked
from support.forked_runs import unidpo_mm

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate")
BOUND = 5
"""Maximum CPU time of a help page, in units of the import of typer and rich; usually below 2."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unidpo_mm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def python(code: str) -> tuple[str, float]:
    """Return what a new interpreter prints, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    return result.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def unit() -> float:
    """Return the CPU seconds of what every help page needs, on this machine at this time."""
    return max(python("import typer.main, rich.console, yaml")[1] for _ in range(2))


@pytest.mark.parametrize(
    "arguments",
    [(), ("train",), ("list",), ("sweep",), ("migrate",), ("export",), ("chat",), ("demo",)],
)
def test_help_is_fast_and_imports_nothing_heavy(arguments: tuple[str, ...], unit: float):
    code = f"""
import atexit, runpy, sys
sys.argv = ["unidpo-mm", *{arguments!r}, "--help"]
atexit.register(lambda: print("loaded:", *sorted(set({HEAVY!r}) & set(sys.modules))))
runpy.run_module("unidpo_mm", run_name="__main__", alter_sys=True)
"""
    printed, seconds = python(code)
    assert "Usage: unidpo-mm" in printed
    assert printed.splitlines()[-1].split() == ["loaded:"]
    if seconds > BOUND * unit:  # another process may have emptied the caches meanwhile
        seconds = python(code)[1]
    assert seconds < BOUND * unit


def test_version():
    assert run("--version").stdout.startswith("unidpo-mm 0.")


def test_a_wrong_recipe_is_an_error_without_traceback(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {name_or_pth: x}\ndata: {sources: [{path: absent.jsonl}]}\n")
    result = run_forked(unidpo_mm("train", str(recipe), "data.seed=x", "--dry-run"))
    assert result.code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "error: the recipe cannot be used (4 problems)" in result.stderr
    assert "did you mean 'name_or_path'?" in result.stderr
    assert "the file 'absent.jsonl' does not exist" in result.stderr
    assert "override 'data.seed=x', key 'data.seed'" in result.stderr
