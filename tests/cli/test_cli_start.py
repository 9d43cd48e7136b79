"""The command line answers at once: nothing heavy is imported before it is needed."""

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate")
BOUND = 2.0
"""Seconds; under 1 on an idle machine, and tests share theirs."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unidpo_mm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [(), ("train",), ("list",), ("sweep",), ("migrate",), ("demo",)]
)
def test_help_is_quick(arguments: tuple[str, ...]):
    seconds = []
    for _ in range(3):  # the best of three: another process may have had the core
        start = time.perf_counter()
        result = run(*arguments, "--help")
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
        assert "Usage: unidpo-mm" in result.stdout
        if seconds[-1] < BOUND:
            return
    pytest.fail(f"`unidpo-mm {' '.join(arguments)} --help` took {min(seconds):.1f} s")


@pytest.mark.parametrize(
    "arguments",
    ["--help", "train --help", "list --help", "sweep --help", "migrate --help", "demo --help"],
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
    result = run("train", str(recipe), "data.seed=x", "--check")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "error: the recipe cannot be used (4 problems)" in result.stderr
    assert "did you mean 'name_or_path'?" in result.stderr
    assert "there is no file 'absent.jsonl'" in result.stderr
    assert "override 'data.seed=x', key 'data.seed'" in result.stderr
