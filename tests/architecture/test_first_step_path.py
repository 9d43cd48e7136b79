"""The path from a recipe to its first step is the one that docs/architecture.md draws."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import unidpo_mm
from unidpo_mm.config import load_recipe
from unidpo_mm.training.run import train_from_recipe

PACKAGE = Path(unidpo_mm.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
MAX_RETURNS = 14

Call = tuple[str, str]
"""A file, relative to the package, and a function in it."""


def drawn_path() -> list[tuple[bool, Call]]:
    """Return the lines of the drawing: whether it is marked as a return, and the call."""
    section = PAGE.read_text(encoding="utf-8").split("## From a recipe to the first step")[1]
    (drawing,) = re.findall(r"```text\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    lines = re.findall(r"^(<-|  ) (\S+)\s+(\S+)", drawing, re.MULTILINE)
    return [(mark == "<-", (file, name)) for mark, file, name in lines]


def traced(run: Callable[[], Any]) -> list[Call]:
    """Return all calls of functions of the package until the end of the first step."""
    calls: list[Call] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if path.startswith(str(PACKAGE)):
            call = (str(Path(path).relative_to(PACKAGE)), frame.f_code.co_qualname)
            if event == "call":
                calls.append(call)
            elif event == "return" and call == ("training/step.py", "preference_step"):
                sys.setprofile(None)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def returns(files: list[str]) -> list[bool]:
    """Return for each file whether it is entered again after the path has left it."""
    return [
        number > 0 and file != files[number - 1] and file in files[:number]
        for number, file in enumerate(files)
    ]


def test_a_run_takes_the_drawn_path(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"prompt": f"What is {n}?", "chosen": "Red", "rejected": "A dog", "score_chosen": 4,
         "score_rejected": 1}
        for n in range(4)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name_or_path: {checkpoint('llama')}}}\n"
        "data: {sources: [{path: rows.jsonl}]}\n"
        f"train: {{output_dir: {tmp_path / 'out'}, max_steps: 1, use_cpu: true, report_to: none, "
        "save_strategy: 'no', disable_tqdm: true}\n"
    )
    calls = iter(traced(lambda: train_from_recipe(load_recipe(recipe))))
    for _, (file, name) in drawn_path():
        is_called = any(call[0] == file and f".{call[1]}".endswith(f".{name}") for call in calls)
        assert is_called, f"{file} {name} is not called at this place of the path"


def test_the_drawing_marks_every_return_and_has_few() -> None:
    path = drawn_path()
    marks = returns([file for _, (file, _) in path])
    assert [marked for marked, _ in path] == marks
    assert len(path) >= 30
    assert sum(marks) <= MAX_RETURNS
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"already left; there are {sum(marks)}." in text
