"""Read the record of a run, which lies next to its model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.yaml_loader import parse_yaml
from ..errors import ModelError, Problem
from ..lora_directory import ADAPTER_CONFIG, is_adapter_directory
from ..report import RunRecord
from ..training.checkpoints import (
    IDENTITY_FILE,
    MANIFEST_FILE,
    CheckpointDamaged,
    checkpoint_paths,
    verify,
)
from ..training.output_directory import RECIPE_FILE, RECORD_FILE

__all__ = ["read_record"]

STATE_FILE = "trainer_state.json"


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
