"""The check of a machine with a GPU runs on a CPU, too, with tiny models."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def gpu_check(out: Path, *words: str, **env: str) -> tuple[int, list[dict[str, str]], str]:
    """Run the program and return its exit code, the lines of its file, and its output."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check"), "--out", str(out), *words]
    result = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = list(csv.DictReader(out.open(encoding="utf-8"))) if out.exists() else []
    return result.returncode, lines, result.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_smoke_test_measures_every_layout(tmp_path: Path) -> None:
    code, lines, output = gpu_check(tmp_path / "cpu.csv", "--cpu", "--limit", "800")
    assert code == 0, output[-4000:]
    assert {line["section"] for line in lines} >= {"machine", "correctness", "steps"}
    layouts = [line for line in lines if line["section"] == "correctness"]
    differences = {
        (line["case"], line["who"]): float(line["value"])
        for line in layouts
        if line["quantity"] == "gradient differs by"
    }
    assert len(differences) >= 2 * 6  # three layouts in two number formats, per model
    for (case, who), value in differences.items():
        assert value < (0.03 if who.endswith("bfloat16") else 5e-6), (case, who)
    (plain,) = {value for (_, who), value in differences.items() if who == "plain, float32"}
    assert plain == 0
    assert max(differences.values()) > 1e-4  # bfloat16 is measured as such
    times = [line for line in lines if line["section"] == "steps" and line["unit"] == "s"]
    assert times
    assert all(float(line["value"]) > 0 for line in times)


@pytest.mark.slow
def test_a_machine_without_gpu_is_told_about_the_smoke_test(tmp_path: Path) -> None:
    code, lines, output = gpu_check(tmp_path / "gpu.csv", CUDA_VISIBLE_DEVICES="")
    assert code == 1
    assert not lines
    assert "gpu_check: torch finds no GPU. Pass --cpu" in output
