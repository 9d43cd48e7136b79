"""The recipe and the record of a run in its output directory."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Recipe, dump_recipe
from ..config.yaml_loader import parse_yaml
from ..errors import Problem, RecipeError

__all__ = [
    "RECIPE_FILE",
    "RECORD_FILE",
    "file_stamps",
    "keep_recipe",
    "prompts_of",
    "same_data_files",
    "same_sections",
]

RECIPE_FILE = "recipe.yaml"
"""The resolved recipe of a run."""

RECORD_FILE = "run.json"
"""The record of the run: resolved loss, layout, data files and versions."""


def keep_recipe(path: Path, recipe: Recipe) -> None:
    """Check that the recorded recipe would not overwrite the user's recipe.

    Raises:
        RecipeError: If it would.
    """
    folder = Path(recipe.train.output_dir)
    record = folder / RECIPE_FILE
    if record.exists() and record.samefile(path) and not (folder / RECORD_FILE).exists():
        text = f"the recorded recipe of the run would overwrite the recipe '{path}'"
        raise RecipeError(Problem("train.output_dir", text, "Choose another directory"))


def same_sections(folder: Path, recipe: Recipe) -> bool:
    """Return whether the recorded recipe has the same sections `model` and `data`."""
    text = (folder / RECIPE_FILE).read_text(encoding="utf-8")
    recorded: Any = parse_yaml(text, RECIPE_FILE).data
    current: Any = parse_yaml(dump_recipe(recipe), RECIPE_FILE).data
    return all(recorded.get(name) == current.get(name) for name in ("model", "data"))


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


def same_data_files(folder: Path, recipe: Recipe) -> bool:
    """Return whether no data file has changed since the run recorded them."""
    recorded = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    return bool(recorded.get("data_files") == file_stamps(recipe))


def prompts_of(recipe: Recipe, processor: Any, reasoning: Mapping[str, str]) -> dict[str, Any]:
    """Return the rendering of prompts and responses, and the digest of the chat template."""
    template = getattr(processor, "chat_template", None)
    tokenizer = getattr(processor, "tokenizer", None)
    template = template or getattr(tokenizer, "chat_template", None)
    style = recipe.model.prompt_style
    if style == "auto":
        style = "raw" if template is None else "chat"
    digest = None if template is None else hashlib.sha256(str(template).encode()).hexdigest()
    return {
        "style": style,
        "chat_template_sha256": digest,
        "chat_template_kwargs": recipe.model.chat_template_kwargs,
        "reasoning": dict(reasoning),
    }
