"""The record of a run next to its model: recipe, settings, log and identity."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.yaml_loader import parse_yaml
from ..errors import ModelError, Problem
from ..lora_directory import ADAPTER_CONFIG, is_adapter_directory
from ..training.checkpoints import (
    IDENTITY_FILE,
    MANIFEST_FILE,
    CheckpointDamaged,
    checkpoint_paths,
    verify,
)
from ..training.output_directory import RECIPE_FILE, RECORD_FILE

__all__ = ["RunRecord", "read_record"]

STATE_FILE = "trainer_state.json"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of a run; everything but the directory is empty for a model without one.

    Attributes:
        directory: The directory of the model or LoRA adapter.
        recipe: The recipe with all its defaults.
        settings: Loss, reference, prompts, judges and versions of the run (`run.json`).
        state: The state of the trainer, with every logged number.
        identity: The identity of the run, with a digest of its data.
    """

    directory: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Mapping[str, Any]:
        """The section `model` of the recipe."""
        return self.recipe.get("model") or {}

    @property
    def start(self) -> str | None:
        """The model that the run started from; `None` if that is not recorded."""
        return self.model.get("name_or_path")

    @property
    def is_adapter(self) -> bool:
        """Whether the directory contains a LoRA adapter, not a full model."""
        return is_adapter_directory(self.directory)


def read_record(directory: Path) -> RunRecord:
    """Read the record of a run.

    Args:
        directory: The output directory of a run, one of its checkpoints, or another directory with
            a LoRA adapter or a model.

    Raises:
        ModelError: If there is no model, or its files differ from the manifest of the run.
    """
    if not directory.is_dir():
        problem = f"'{directory}' is not a directory"
        raise ModelError(Problem("FOLDER", problem, "Use the output directory of a run"))
    if not (is_adapter_directory(directory) or (directory / "config.json").is_file()):
        problem = f"'{directory}' has no config.json and no {ADAPTER_CONFIG}, so it is not a model"
        remedy = "Use the output directory of a run"
        if unfinished := checkpoint_paths(directory):
            problem = f"the run in '{directory}' has not saved its final model"
            remedy = f"Finish it, or use one of its checkpoints, such as {unfinished[0]}"
        raise ModelError(Problem("FOLDER", problem, remedy))
    if (directory / MANIFEST_FILE).is_file():
        try:
            verify(directory)
        except CheckpointDamaged as error:
            remedy = "Use another checkpoint of the run, or repeat its last command"
            problem = f"the model is incomplete or damaged ({error})"
            raise ModelError(Problem(str(directory), problem, remedy)) from error
    places = [directory]
    if directory.name.startswith("checkpoint-"):
        places.append(directory.parent)
    return RunRecord(
        directory=directory,
        recipe=_read(places, RECIPE_FILE),
        settings=_read(places, RECORD_FILE),
        state=_read(places[:1], STATE_FILE),
        identity=_read(places[:1], IDENTITY_FILE),
    )


def _read(places: list[Path], name: str) -> Mapping[str, Any]:
    """Return the content of the first file of this name; empty if there is none.

    Raises:
        ModelError: If it cannot be read.
    """
    for place in places:
        path = place / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            content = parse_yaml(text, name).data if name == RECIPE_FILE else json.loads(text)
        except (OSError, ValueError) as error:
            problem = f"the record of the run cannot be read ({error})"
            remedy = "Restore the file, or delete it to export without it"
            raise ModelError(Problem(str(path), problem, remedy)) from error
        if isinstance(content, Mapping):
            return content
    return {}
