"""Run a sweep from its file to the printed table, for `unidpo-mm sweep` and other commands."""

import os
from pathlib import Path

from rich.console import Console

from ..config.checks.recipe import check_loss, check_train
from ..errors import Problem, RecipeError
from .plan import check_arms, read_sweep
from .run import list_runs, run_sweep
from .runner import Runner, load_runner
from .table import as_csv, as_markdown, as_table

__all__ = ["run_and_show"]

WIDTH = 140
"""Minimum width of the table; in a narrower one its cells would be wrapped."""


def run_and_show(
    path: Path,
    output: Path,
    seeds: str = "",
    *,
    runner: Runner | None = None,
    dry_run: bool = False,
) -> None:
    """Run the unfinished runs of a sweep and print the table.

    It is also written to `OUTPUT/table.md`, and the metrics of every run to `OUTPUT/runs.csv`.

    Args:
        path: The sweep file.
        output: Directory of the runs.
        seeds: Seeds to use instead of the file's, separated by commas; empty for the file's.
        runner: What a run is; None for the runner that the file states.
        dry_run: Whether to check the sweep and list its runs instead.

    Raises:
        RecipeError: With all problems of file, arms and seeds.
    """
    sweep = read_sweep(path)
    if seeds:
        sweep = sweep.model_copy(update={"seeds": _parse_seeds(seeds)})
    runner = runner or load_runner(sweep.runner)
    check_arms(sweep, (check_loss, check_train, runner.check))
    if output.exists() and not output.is_dir():
        raise RecipeError(Problem("--output", f"'{output}' is a file", "Choose a directory"))
    console = Console(width=max(Console().width, WIDTH))
    if dry_run:
        for run in list_runs(sweep, runner, output):
            state = "to run" if run.values is None else "finished"
            console.print(f"seed {run.seed}, {run.arm}: {state}", markup=False, highlight=False)
        return
    results = run_sweep(sweep, runner, output)
    if int(os.environ.get("RANK", "0")):
        return  # only the first of several processes shows the table
    table = output / "table.md"
    table.write_text(as_markdown(results, runner.metrics), encoding="utf-8")
    runs = output / "runs.csv"
    runs.write_text(as_csv(list_runs(sweep, runner, output)), encoding="utf-8")
    title = f"{path.stem}: mean ± standard error over seeds {', '.join(map(str, sweep.seeds))}"
    console.print(as_table(results, runner.metrics, title=title))
    console.print(f"Written: {table}, {runs}")


def _parse_seeds(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        remedy = "Use whole numbers separated by commas, for example 0,1,2"
        raise RecipeError(Problem("--seeds", f"invalid seeds '{text}'", remedy))
    return tuple(dict.fromkeys(int(word) for word in words))
