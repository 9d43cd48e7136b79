"""LLaMA-Factory's data sets, which configurations refer to by a name in `dataset_info.json`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Problem, RecipeError
from .conversion import Conversion
from .table import as_list

__all__ = ["convert_data"]

FILE = "dataset_info.json"
SUPPORTED_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
IGNORED_KEYS = ("folder", "revision")
UNSUPPORTED_ORIGINS = ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


@dataclass(frozen=True, kw_only=True)
class DatasetRegistry:
    """The registered data sets of a directory.

    Attributes:
        directory: Directory of the data files, as a recipe has it.
        entries: Name -> entry of a data set; None if there is no registry.
        images: Directory of the images; None if it is `directory`.
    """

    directory: Path
    entries: Mapping[str, Any] | None = None
    images: str | None = None

    def source(self, name: str) -> tuple[dict[str, Any], list[str]]:
        """Return the source in a recipe for a registered name, and notes on it."""
        path = (self.directory / FILE).as_posix()
        images = {} if self.images is None else {"images": self.images}
        entry = (self.entries or {}).get(name)
        if isinstance(entry, Mapping):
            return {"path": path, "subset": name, **images}, list(_notes(name, entry))
        reason = f"{path} does not exist" if self.entries is None else f"{path} has no '{name}'"
        note = f"{reason}, so the recipe has '{name}' as the path; replace it by the data file"
        return {"path": name, **images}, [note]


def _notes(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for key in UNSUPPORTED_ORIGINS:
        if key in entry and "file_name" not in entry and "hf_hub_url" not in entry:
            yield f"'{name}' comes from {key}, which is not supported; set 'file_name' to a file"
    file = Path(str(entry.get("file_name", "")))
    if file.suffix and file.suffix not in SUPPORTED_SUFFIXES:
        suffixes = ", ".join(SUPPORTED_SUFFIXES)
        yield f"'{file.name}' is not in a supported file format ({suffixes})"
    if not entry.get("ranking"):
        yield f"'{name}' has no 'ranking': true in {FILE}, so it has no pairs"
    for key in IGNORED_KEYS:
        if entry.get(key) is not None:
            yield f"'{key}' of '{name}' in {FILE} is ignored; the data are used as they are"


def _load_registry(directory: str, config_directory: Path, images: str | None) -> DatasetRegistry:
    """Return the registered data sets of a directory.

    Args:
        directory: The directory as the configuration states it, relative to the working directory
            or to that of the configuration.
        config_directory: Directory of the configuration.
        images: Directory of the images, if the configuration states one.

    Raises:
        RecipeError: If the registry exists and cannot be read.
    """
    for candidate in (Path(directory), config_directory / directory):
        path = candidate / FILE
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problem = f"cannot be read as JSON: {error}"
            raise RecipeError(Problem(str(path), problem, "Fix or remove it")) from error
        if isinstance(entries, Mapping):
            return DatasetRegistry(directory=candidate, entries=entries, images=images)
    return DatasetRegistry(directory=Path(directory), images=images)


def convert_data(conversion: Conversion) -> None:
    """Convert the data sets and what is held out of them."""
    directory, images = str(conversion.value("dataset_dir")), conversion.value("media_dir")
    images = None if images is None else str(images)
    try:
        registry = _load_registry(directory, conversion.directory, images)
    except RecipeError as error:
        conversion.problems += error.problems
        registry = DatasetRegistry(directory=Path(directory), images=images)
    if sources := _sources(conversion, registry, "dataset"):
        conversion.set("data.sources", sources, "dataset", "media_dir")
    if "dataset_dir" in conversion.values:
        if registry.entries is None:
            conversion.note("dataset_dir", "there is no dataset_info.json in it")
        else:
            conversion.used_keys.add("dataset_dir")
    if sources := _sources(conversion, registry, "eval_dataset"):
        conversion.set("data.eval_sources", sources, "eval_dataset")
    elif "eval_dataset" in conversion.values:
        conversion.skip("eval_dataset", "expected the name of a data set, so it is not migrated")
    conversion.set_eval_fraction("val_size")


def _sources(conversion: Conversion, registry: DatasetRegistry, key: str) -> list[dict[str, Any]]:
    sources = []
    for name in as_list(conversion.values.get(key)):
        source, notes = registry.source(name)
        sources.append(source)
        for text in notes:
            conversion.note(key, text)
    return sources
