"""A sweep from its file to the printed table; `unidpo-mm sweep` and other commands call it."""

import os
from pathlib import Path

from rich.console import Console

from ..errors import Problem, RecipeError
from ..training.recipe_checks import check_loss, check_train
from .plan import check_arms, read_sweep
from .run import run_sweep
from .runner import Runner, load_runner
from .table import as_markdown, as_table

__all__ = ["run_and_show"]

WIDTH = 140
"""Columns that the table gets at least; narrower, its cells would break apart."""


def run_and_show(path: Path, out: Path, seeds: str = "", *, runner: Runner | None = None) -> None:
    """Run what is not done of a sweep, prints its table and writes `OUT/table.md`.

    Args:
        path: The sweep file.
        out: Folder of the runs.
        seeds: Seeds in place of the file's, with commas; empty for the file's.
        runner: What a run is; None for the one that the file names.

    Raises:
        RecipeError: With everything that is wrong with file, arms and seeds.
    """
    plan = read_sweep(path)
    if seeds:
        plan = plan.model_copy(update={"seeds": _numbers(seeds)})
    runner = runner or load_runner(plan.runner)
    check_arms(plan, (check_loss, check_train, runner.check))
    if out.exists() and not out.is_dir():
        raise RecipeError(Problem("--out", f"'{out}' is a file", "Name a folder"))
    results = run_sweep(plan, runner, out)
    if int(os.environ.get("RANK", "0")):
        return  # one of several processes shows the table
    table = out / "table.md"
    table.write_text(as_markdown(results, runner.figures), encoding="utf-8")
    title = f"{path.stem}: mean ± standard error over seeds {', '.join(map(str, plan.seeds))}"
    console = Console(width=max(Console().width, WIDTH))
    console.print(as_table(results, runner.figures, title=title))
    console.print(f"Written: {table}")


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        remedy = "Write whole numbers with commas, for example 0,1,2"
        raise RecipeError(Problem("--seeds", f"found '{text}'", remedy))
    return tuple(dict.fromkeys(int(word) for word in words))
