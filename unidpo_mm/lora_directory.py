"""LoRA adapter directories, which PEFT and the trainer write instead of a complete model."""

import json
import re
from pathlib import Path
from typing import Any

from .errors import ModelError, Problem

__all__ = [
    "ADAPTER_CONFIG",
    "base_of",
    "is_adapter_directory",
    "processor_directory",
]

ADAPTER_CONFIG = "adapter_config.json"
BASE_KEY = "base_model_name_or_path"

TOKENIZER_FILES = ("tokenizer_config.json",)
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")

WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")
"""Files of a complete model; some adapters come with the config.json of their base model."""

HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


def is_adapter_directory(name_or_path: str | Path) -> bool:
    """Return whether a path is a directory with a PEFT adapter and without a complete model."""
    directory = Path(name_or_path)
    if not (directory / ADAPTER_CONFIG).is_file():
        return False
    return not any(next(directory.glob(pattern), None) for pattern in WEIGHTS)


def base_of(directory: str | Path, chosen: str | None = None, *, key: str | None = None) -> str:
    """Return the directory or hub name of the base model of an adapter.

    A relative path starts at the current directory or else at the adapter's directory.

    Args:
        directory: The adapter directory.
        chosen: The base model that the user chose; `None` for the one in `adapter_config.json`, on
            which the adapter was trained.
        key: The setting that `chosen` comes from, for messages; `None` if the user cannot set it.

    Raises:
        ModelError: If no base model is recorded, or it is a directory that does not exist.
    """
    path = Path(directory)
    name = chosen or _recorded(path)
    file = path / ADAPTER_CONFIG
    setting = key if chosen and key else str(file)
    remedy = f"correct {BASE_KEY} in {file}"
    remedy = f"Set {key} to the base model, or {remedy}" if key else remedy.capitalize()
    if not name:
        problem = f"'{path}' does not say which base model the adapter was trained on"
        raise ModelError(Problem(setting, problem, remedy))
    local = next((str(place) for place in (Path(name), path / name) if place.is_dir()), None)
    if local is None and not HUB_NAME.match(name):
        problem = f"the base model '{name}' of the adapter '{path}' does not exist"
        raise ModelError(Problem(setting, problem, remedy))
    if local is not None and is_adapter_directory(local):
        problem = f"the base model '{name}' of the adapter '{path}' is an adapter itself"
        remedy = f"Merge it first: unidpo-mm export {name} --merge --output DIRECTORY"
        raise ModelError(Problem(setting, problem, remedy))
    return local or name


def processor_directory(directory: str | Path, base: str, *, needs_processor: bool) -> str:
    """Return the path of the processor of an adapter: its own directory if one was saved there.

    Args:
        directory: The adapter directory.
        base: Its base model.
        needs_processor: Whether a tokenizer is not enough.
    """
    files = PROCESSOR_FILES if needs_processor else TOKENIZER_FILES
    saved = any((Path(directory) / file).is_file() for file in files)
    return str(directory) if saved else base


def _recorded(path: Path) -> str:
    """Return the base model in the configuration of an adapter, or an empty string."""
    file = path / ADAPTER_CONFIG
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return str(content.get(BASE_KEY) or "")
    except (OSError, ValueError, AttributeError) as error:
        problem = f"it cannot be read ({error})"
        raise ModelError(Problem(str(file), problem, "Save the adapter again")) from error
