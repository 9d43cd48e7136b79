"""The command line starts fast: heavy packages are imported only when they are needed."""

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate")
BOUND = 2.0
"""Maximum CPU seconds, which do not depend on other processes; usually below 1."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unidpo_mm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [(), ("train",), ("list",), ("sweep",), ("migrate",), ("merge",), ("chat",), ("demo",)],
)
def test_help_is_fast(arguments: tuple[str, ...]):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run(*arguments, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert "Usage: unidpo-mm" in result.stdout
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < BOUND


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "train --help",
        "list --help",
        "sweep --help",
        "migrate --help",
        "merge --help",
        "chat --help",
        "demo --help",
    ],
)
def test_help_imports_nothing_heavy(arguments: str):
    code = f"""
import sys
from unidpo_mm.cli.main import build_app
try:
    build_app({arguments.split()!r})({arguments.split()!r})
except SystemExit:
    pass
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
assert not loaded, loaded
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_version():
    assert run("--version").stdout.startswith("unidpo-mm 0.")


def test_a_wrong_recipe_is_an_error_without_traceback(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {name_or_pth: x}\ndata: {sources: [{path: absent.jsonl}]}\n")
    result = run("train", str(recipe), "data.seed=x", "--dry-run")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "error: the recipe cannot be used (4 problems)" in result.stderr
    assert "did you mean 'name_or_path'?" in result.stderr
    assert "the file 'absent.jsonl' does not exist" in result.stderr
    assert "override 'data.seed=x', key 'data.seed'" in result.stderr
