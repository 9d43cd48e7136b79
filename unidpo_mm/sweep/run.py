"""Run every arm of a sweep with every seed, with one result file per finished run."""

import gc
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..atomic import write_text
from ..config import load_recipe
from .plan import Sweep
from .runner import Runner

__all__ = ["Results", "Run", "list_runs", "run_sweep"]

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, list[float]]]
"""Arm -> metric -> value for each seed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed.

    Attributes:
        arm: Name of the arm.
        seed: The seed.
        directory: Directory of its checkpoints.
        plan: What defines it; equal plans have equal results.
        values: Metric -> value if it is finished, else None.
    """

    arm: str
    seed: int
    directory: Path
    plan: Mapping[str, Any]
    values: Mapping[str, float] | None


def list_runs(sweep: Sweep, runner: Runner, output: Path) -> list[Run]:
    """Return all runs of a sweep, seed by seed."""
    return [run for seed in sweep.seeds for run in _runs(sweep, runner, output, seed)]


def run_sweep(sweep: Sweep, runner: Runner, output: Path) -> Results:
    """Run what is not finished and return the results of all runs.

    The result of a run is the file `OUTPUT/seed-N/arms/ARM.json`, which also states recipe,
    overrides, seed, data files, runner and version. If any of them changes, the run is repeated.

    Args:
        sweep: A sweep from `read_sweep`.
        runner: What a run is.
        output: Directory of all runs.
    """
    results: Results = {}
    for seed in sweep.seeds:
        runs = _runs(sweep, runner, output, seed)
        for arm, values in _run_seed(sweep, runner, output / f"seed-{seed}", runs).items():
            for metric, value in values.items():
                results.setdefault(arm, {}).setdefault(metric, []).append(value)
    return results


def _runs(sweep: Sweep, runner: Runner, output: Path, seed: int) -> list[Run]:
    runs = []
    for arm, overrides in sweep.arms.items():
        directory = output / f"seed-{seed}" / "arms" / _file_name(arm)
        plan = {
            **_common_plan(sweep, runner, seed),
            **_recipe_plan(Path(sweep.recipe), overrides),
        }
        values = _result(_result_file(directory), plan)
        runs.append(Run(arm=arm, seed=seed, directory=directory, plan=plan, values=values))
    return runs


def _run_seed(
    sweep: Sweep, runner: Runner, directory: Path, runs: Sequence[Run]
) -> dict[str, Mapping[str, float]]:
    """Return the values of the common start and of every arm, without empty ones."""
    seed, start_file = runs[0].seed, directory / "start.json"
    plan = _common_plan(sweep, runner, seed)
    values: dict[str, Mapping[str, float] | None] = {
        runner.start_title: _result(start_file, plan),
        **{run.arm: run.values for run in runs},
    }
    unfinished = [run for run in runs if run.values is None]
    if unfinished:
        start = runner.prepare(directory, seed)
        start_values = dict(runner.start_values(start))
        values[runner.start_title] = start_values
        _write(start_file, plan, start_values)
    for run in unfinished:
        logger.info("seed %d, arm '%s'", seed, run.arm)
        result = runner.run(start, Path(sweep.recipe), sweep.arms[run.arm], run.directory)
        values[run.arm] = dict(result)
        _write(_result_file(run.directory), run.plan, result)
        gc.collect()  # a trainer is part of a cycle: models of many runs would stay in memory
    return {arm: result for arm, result in values.items() if result}


def _common_plan(sweep: Sweep, runner: Runner, seed: int) -> dict[str, Any]:
    return {"runner": sweep.runner, **runner.settings, "version": __version__, "seed": seed}


def _recipe_plan(recipe: Path, overrides: Sequence[str]) -> dict[str, Any]:
    data = load_recipe(recipe, overrides).data
    sources = [Path(source.path) for source in (*data.sources, *data.eval_sources)]
    return {
        "recipe": recipe.name,
        "sha256": hashlib.sha256(recipe.read_bytes()).hexdigest(),
        "overrides": list(overrides),
        "data": [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns]
            for path in sources
            if path.is_file()
        ],
    }


def _result_file(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.json")


def _result(path: Path, plan: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the values of a finished run with the same plan; None if there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record["values"]) if record["plan"] == plan else None
    except (OSError, ValueError, KeyError, TypeError):  # missing or incomplete
        return None


def _write(path: Path, plan: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """Write a result in the first of several processes."""
    if int(os.environ.get("RANK", "0")):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"plan": plan, "values": dict(values)}, indent=2))


def _file_name(arm: str) -> str:
    """Return a name that is valid on every file system and differs between arms."""
    plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", arm).strip("_.")
    return plain if plain == arm else f"{plain}-{hashlib.sha256(arm.encode()).hexdigest()[:6]}"
