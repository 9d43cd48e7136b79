"""Goes through the arms and seeds of a sweep, one file per finished run."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..recipe import load_recipe
from .plan import Sweep
from .runner import Runner

__all__ = ["Results", "run_sweep"]

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, list[float]]]
"""Arm -> figure -> its value for each seed."""


def run_sweep(sweep: Sweep, runner: Runner, out: Path) -> Results:
    """Run what is not done yet and returns the figures of all runs.

    A finished run is a file `OUT/seed-N/arms/ARM.json` that records what was run: recipe,
    overrides, seed, data files, runner and version. If any of it changed, the run is done again.

    Args:
        sweep: As `read_sweep` returns it.
        runner: What a run is.
        out: Folder of everything.
    """
    results: Results = {}
    for seed in sweep.seeds:
        for arm, values in _one_seed(sweep, runner, out / f"seed-{seed}", seed).items():
            for name, value in values.items():
                results.setdefault(arm, {}).setdefault(name, []).append(value)
    return results


def _one_seed(
    sweep: Sweep, runner: Runner, folder: Path, seed: int
) -> dict[str, Mapping[str, float]]:
    recipe, arms = Path(sweep.recipe), folder / "arms"
    common = {"runner": sweep.runner, **runner.settings, "version": __version__, "seed": seed}
    plans = {arm: {**common, **_plan(recipe, given)} for arm, given in sweep.arms.items()}
    files = {arm: arms / f"{_file_name(arm)}.json" for arm in sweep.arms}
    done = {arm: _finished(files[arm], plans[arm]) for arm in sweep.arms}
    start_file = folder / "start.json"
    begun = _finished(start_file, common)
    missing = [arm for arm, values in done.items() if values is None]
    if missing:
        start = runner.prepare(folder, seed)
        begun = dict(runner.start_values(start))
        _write(start_file, common, begun)
    for arm in missing:
        logger.info("seed %d, arm '%s'", seed, arm)
        done[arm] = dict(runner.run(start, recipe, sweep.arms[arm], arms / _file_name(arm)))
        _write(files[arm], plans[arm], done[arm] or {})
    found = {runner.start_title: begun, **done}
    return {arm: values for arm, values in found.items() if values}


def _plan(recipe: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return what makes two runs of a seed the same."""
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


def _finished(path: Path, plan: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the values of a run that was finished by the same plan, else None."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record["values"]) if record["plan"] == plan else None
    except (OSError, ValueError, KeyError, TypeError):  # none there, or not in one piece
        return None


def _write(path: Path, plan: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """Write a result in one piece, by one of several processes: a kill leaves no half of it."""
    if int(os.environ.get("RANK", "0")):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    text = json.dumps({"plan": plan, "values": dict(values)}, indent=2)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _file_name(arm: str) -> str:
    """Return a name that every file system takes, and that differs between arms."""
    plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", arm).strip("_.")
    return plain if plain == arm else f"{plain}-{hashlib.sha256(arm.encode()).hexdigest()[:6]}"
