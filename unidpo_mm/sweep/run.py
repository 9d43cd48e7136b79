"""Goes through the arms and seeds of a sweep, one file per finished run."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .plan import Sweep
from .runner import Runner

__all__ = ["START", "Results", "run_sweep"]

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, list[float]]]
"""Arm -> figure -> its value for each seed."""

START = "start"
"""Name of the arm that is the common start of all others, where a runner measures it."""


def run_sweep(sweep: Sweep, runner: Runner, out: Path) -> Results:
    """Runs what is not done yet and returns the figures of all runs.

    A finished run is a file `OUT/seed-N/ARM.json` that records what was run; a run whose recipe or
    overrides changed since then is run again.

    Args:
        sweep: As `load_sweep` returns it.
        runner: What a run is.
        out: Folder of everything.
    """
    results: Results = {}
    for seed in sweep.seeds:
        for arm, values in _one_seed(sweep, runner, out / f"seed-{seed}", seed).items():
            for name, value in values.items():
                results.setdefault(arm, {}).setdefault(name, []).append(value)
    return results


def _one_seed(sweep: Sweep, runner: Runner, folder: Path, seed: int) -> dict[str, dict[str, float]]:
    recipe = Path(sweep.recipe)
    files = {arm: folder / f"{_file_name(arm)}.json" for arm in sweep.arms}
    plans = {arm: _plan(recipe, overrides, seed) for arm, overrides in sweep.arms.items()}
    missing = [arm for arm in sweep.arms if _finished(files[arm], plans[arm]) is None]
    start_file = folder / f"{START}.json"
    start_plan = {"runner": sweep.runner, "seed": seed}
    if missing:
        start = runner.prepare(folder, seed)
        _write(start_file, start_plan, runner.start_values(start))
    for arm in missing:
        logger.info("seed %d, arm '%s'", seed, arm)
        values = runner.run(start, recipe, sweep.arms[arm], folder / _file_name(arm))
        _write(files[arm], plans[arm], values)
    begun = _finished(start_file, start_plan)
    found = {START: begun} | {arm: _finished(files[arm], plans[arm]) for arm in sweep.arms}
    return {arm: values for arm, values in found.items() if values}


def _plan(recipe: Path, overrides: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Returns what makes two runs the same."""
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    return {"recipe": recipe.name, "sha256": digest, "overrides": list(overrides), "seed": seed}


def _finished(path: Path, plan: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the values of a run that was finished by the same plan, else None."""
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return dict(record["values"]) if record["plan"] == plan else None


def _write(path: Path, plan: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """Writes a result in one piece: a killed sweep leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    text = json.dumps({"plan": plan, "values": dict(values)}, indent=2)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _file_name(arm: str) -> str:
    """Returns a name that every file system takes, and that differs between arms."""
    plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", arm).strip("_.")
    return plain if plain == arm else f"{plain}-{hashlib.sha256(arm.encode()).hexdigest()[:6]}"
