"""LLaMA-Factory's data sets, which configurations refer to by a name in `dataset_info.json`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import Problem
from .conversion import Conversion
from .llama_factory_model import convert_videos
from .table import as_list

__all__ = ["convert_data"]

FILE = "dataset_info.json"
SUPPORTED_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
IGNORED_KEYS = ("folder", "revision")
UNSUPPORTED_ORIGINS = ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


def convert_data(conversion: Conversion) -> None:
    """Convert the data sets and what is held out of them."""
    directory, entries = _registry(conversion, str(conversion.value("dataset_dir")))
    if "dataset_dir" in conversion.values:
        if entries is None:
            conversion.note("dataset_dir", f"there is no {FILE} in it")
        else:
            conversion.used_keys.add("dataset_dir")
    for key, target in (("dataset", "data.sources"), ("eval_dataset", "data.eval_sources")):
        names = as_list(conversion.values.get(key))
        sources = [_source(conversion, key, name, directory / FILE, entries) for name in names]
        if sources:
            conversion.set(target, sources, key, "media_dir")
        elif key == "eval_dataset" and key in conversion.values:
            conversion.skip(key, "expected the name of a data set, so it is not migrated")
    conversion.set_eval_fraction("val_size")


def _registry(conversion: Conversion, directory: str) -> tuple[Path, Mapping[str, Any] | None]:
    """Return the directory of the data and name -> entry of a data set; None without a registry.

    The directory is relative to the working directory or to that of the configuration.
    """
    for candidate in (Path(directory), conversion.directory / directory):
        path = candidate / FILE
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            text = f"cannot be read as JSON: {error}"
            conversion.problems.append(Problem(str(path), text, "Fix or remove it"))
            break
        if isinstance(entries, Mapping):
            return candidate, entries
    return Path(directory), None


def _source(
    conversion: Conversion, key: str, name: str, file: Path, entries: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the source in a recipe for a registered name, and add notes on it."""
    images = conversion.value("media_dir")
    common = {} if images is None else {"images": str(images)}
    path, entry = file.as_posix(), (entries or {}).get(name)
    if isinstance(entry, Mapping):
        for text in _notes(name, entry):
            conversion.note(key, text)
        columns = entry.get("columns")
        if isinstance(columns, Mapping) and columns.get("videos"):
            convert_videos(conversion, has_videos=True)
        return {"path": path, "subset": name, **common}
    reason = f"{path} does not exist" if entries is None else f"{path} has no '{name}'"
    text = f"{reason}, so the recipe has '{name}' as the path; replace it by the data file"
    conversion.note(key, text)
    return {"path": name, **common}


def _notes(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for key in UNSUPPORTED_ORIGINS:
        if key in entry and "file_name" not in entry and "hf_hub_url" not in entry:
            yield f"'{name}' comes from {key}, which is not supported; set 'file_name' to a file"
    file = Path(str(entry.get("file_name", "")))
    if file.suffix and file.suffix not in SUPPORTED_SUFFIXES:
        suffixes = ", ".join(SUPPORTED_SUFFIXES)
        yield f"'{file.name}' is not in a supported file format ({suffixes})"
    columns = entry.get("columns")
    labeled = isinstance(columns, Mapping) and columns.get("kto_tag")
    if not (labeled or entry.get("ranking")):
        yield (
            f"'{name}' has neither 'ranking': true nor a column 'kto_tag' in {FILE}, so it has no "
            "pairs or labels"
        )
    for key in IGNORED_KEYS:
        if entry.get(key) is not None:
            yield f"'{key}' of '{name}' in {FILE} is ignored; the data are used as they are"
