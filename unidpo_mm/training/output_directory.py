"""The output directory of a run: its lock, the recorded recipe and the record of the run.

Two runs in one directory would delete each other's checkpoints. The operating system releases the
lock when the process ends, so a killed run never leaves it locked.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..config import Recipe, dump_recipe
from ..config.yaml_loader import parse_yaml
from ..errors import Problem, RecipeError
from ..lock_holder import LockHolder

__all__ = [
    "RECIPE_FILE",
    "RECORD_FILE",
    "check_recipe_not_overwritten",
    "exclusive",
    "file_stamps",
    "same_data_files",
    "same_sections",
]

RECIPE_FILE = "recipe.yaml"
"""The resolved recipe of a run."""

RECORD_FILE = "run.json"
"""The record of the run: resolved loss, layout, data files and versions."""

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.json"
"""The process that holds the lock."""

ORPHAN_SECONDS = 10.0
"""Seconds to wait for the data workers of a killed run, which may still hold its lock."""


@contextlib.contextmanager
def exclusive(output_dir: Path, *, option: str = "train.output_dir") -> Iterator[None]:
    """Hold the lock of an output directory; a process may acquire it several times.

    Args:
        output_dir: The directory; it is created if it does not exist.
        option: The option that sets the directory, for messages.

    Raises:
        RecipeError: If another process holds the lock, or the directory cannot be written to.
    """
    is_new = not output_dir.exists()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output_dir / LOCK_FILE, is_singleton=True)
        holder = LockHolder.read(output_dir / HOLDER_FILE)
        lock.acquire(timeout=ORPHAN_SECONDS if holder and holder.has_ended else 0)
    except Timeout:
        text = f"another run is using '{output_dir}'"
        if holder := LockHolder.read(output_dir / HOLDER_FILE):
            text += f" ({holder})"
        remedy = "Wait for it to finish, stop it, or choose another directory"
        raise RecipeError(Problem(option, text, remedy)) from None
    except OSError as error:
        text = f"'{output_dir}' cannot be written to ({error.strerror or error})"
        raise RecipeError(Problem(option, text, "Choose another directory")) from error
    try:
        if lock.lock_counter == 1:
            LockHolder.current().write(output_dir / HOLDER_FILE)
        yield
    finally:
        lock.release()
        if is_new:  # a refused run must not leave files behind
            _remove_empty(output_dir)


def _remove_empty(output_dir: Path) -> None:
    """Remove a directory that contains only the lock."""
    with contextlib.suppress(OSError):
        if {path.name for path in output_dir.iterdir()} <= {LOCK_FILE, HOLDER_FILE}:
            for name in (LOCK_FILE, HOLDER_FILE):
                (output_dir / name).unlink(missing_ok=True)
            output_dir.rmdir()


def check_recipe_not_overwritten(path: Path, recipe: Recipe) -> None:
    """Check that recording the recipe of a run does not overwrite the user's own file.

    Args:
        path: The user's recipe.
        recipe: Its content, with overrides.

    Raises:
        RecipeError: If the file would be overwritten.
    """
    folder = Path(recipe.train.output_dir)
    record = folder / RECIPE_FILE
    if record.exists() and record.samefile(path) and not (folder / RECORD_FILE).exists():
        text = f"the recorded recipe of the run would overwrite the recipe '{path}'"
        raise RecipeError(Problem("train.output_dir", text, "Choose another directory"))


def same_sections(folder: Path, recipe: Recipe) -> bool:
    """Return whether the recorded recipe has the same `model` and `data` sections."""
    text = (folder / RECIPE_FILE).read_text(encoding="utf-8")
    recorded: Any = parse_yaml(text, RECIPE_FILE).data
    current: Any = parse_yaml(dump_recipe(recipe), RECIPE_FILE).data
    return all(recorded.get(name) == current.get(name) for name in ("model", "data"))


def same_data_files(folder: Path, recipe: Recipe) -> bool:
    """Return whether no data file has changed since the run recorded them."""
    recorded = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    return bool(recorded.get("data_files") == file_stamps(recipe))


def file_stamps(recipe: Recipe) -> dict[str, list[int]]:
    """Return the size in bytes and the modification time in nanoseconds of each local data file."""
    sources = (*recipe.data.sources, *recipe.data.eval_sources)
    paths = {Path(source.path) for source in sources}
    files = {
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    }
    stats = {str(file): file.stat() for file in sorted(files)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
