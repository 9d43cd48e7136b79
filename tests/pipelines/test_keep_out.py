"""The leak guard in `unidpo-mm data make`: dropped, refused and listed prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import run_command
from support.small_benchmarks import math_lines

from unidpo_mm.data.leaks import LIMITS


def write(folder: Path, **keep_out: Any) -> Path:
    prompts = [
        {"prompt": "What is 0 + 4?", "responses": [{"text": "a"}, {"text": "bc"}]},
        {"prompt": "What is 99 + 4?", "responses": [{"text": "a"}, {"text": "bc"}]},
        {"prompt": "who WROTE  it", "responses": [{"text": "a"}, {"text": "bc"}]},
    ]
    held_out = [{"prompt": "Who wrote it?"}]
    for name, rows in (("prompts", prompts), ("held_out", held_out)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    math_lines(folder)
    recipe = {
        "output": str(folder / "made"),
        "prompts": {
            "sources": [{"path": "prompts.jsonl"}],
            "keep_out": {"sources": ["gsm8k", "held_out.jsonl"], "data": ".", **keep_out},
        },
        "sample": {"responses": "given"},
        "score": {"brief": {"scorer": "rules", "matches": "b"}},
    }
    path = folder / "make.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_questions_of_benchmarks_and_files_are_left_out_and_listed(tmp_path: Path) -> None:
    end = run_command("data", "make", str(write(tmp_path)))
    assert end.exit_code == 0, end.output
    assert "2 kept out" in end.output
    assert LIMITS in " ".join(end.output.split())  # what it cannot see
    leaks = [json.loads(line) for line in (tmp_path / "made/leaks.jsonl").read_text().splitlines()]
    assert {leak["where"].rpartition(" ")[2] for leak in leaks} == {"1", "3"}
    assert all(leak["dropped"] for leak in leaks)
    (row,) = (tmp_path / "made/rows.jsonl").read_text().splitlines()
    assert json.loads(row)["prompt"] == "What is 99 + 4?"


def test_leaks_are_refused_with_all_places(tmp_path: Path) -> None:
    end = run_command("data", "make", str(write(tmp_path, leaks="refuse")))
    assert end.exit_code == 2
    assert "prompts.jsonl row 1" in end.output
    assert "prompts.jsonl row 3" in end.output
    assert not (tmp_path / "made/rows.jsonl").exists()


@pytest.mark.parametrize(
    ("sources", "message"),
    [(["gsm9k"], "did you mean 'gsm8k'"), (["absent.jsonl"], "neither a benchmark nor a file")],
)
def test_an_unknown_benchmark(tmp_path: Path, sources: list[str], message: str) -> None:
    end = run_command("data", "make", str(write(tmp_path, sources=sources)))
    assert end.exit_code == 2
    assert message in end.output
    assert "prompts.keep_out.sources" in end.output
