"""Data sets that a file names by a registered name: what `dataset_info.json` says of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Problem, RecipeError

__all__ = ["Registry", "load_registry"]

FILE = "dataset_info.json"
READ_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
NOT_READ = ("folder", "revision")
ELSEWHERE = ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The registered data sets of a folder.

    Attributes:
        folder: Where the data files are, as it is written into a recipe.
        entries: Name -> what is registered of it; None where there is no such file.
        images: Folder of the images, where it is another one.
    """

    folder: Path
    entries: Mapping[str, Any] | None = None
    images: str | None = None

    def source(self, name: str) -> tuple[dict[str, Any], list[str]]:
        """Return the source of a recipe for a registered name, and what to know of it."""
        entry = (self.entries or {}).get(name)
        if not isinstance(entry, Mapping):
            images = {} if self.images is None else {"images": self.images}
            why = "there is no" if self.entries is None else f"'{name}' is not in"
            where = (self.folder / FILE).as_posix()
            text = f"{why} {where}, so '{name}' stands as the path: name the file"
            return {"path": name, **images}, [text]
        source = {"path": (self.folder / FILE).as_posix(), "subset": name}
        if self.images is not None:
            source["images"] = self.images
        return source, list(_not_read(name, entry))


def _not_read(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of an entry is not read, and where its data cannot be."""
    for key in ELSEWHERE:
        if key in entry and "file_name" not in entry and "hf_hub_url" not in entry:
            yield f"'{name}' comes from {key}, which is not read: name a file in 'file_name'"
    file = Path(str(entry.get("file_name", "")))
    if file.suffix and file.suffix not in READ_SUFFIXES:
        known = ", ".join(READ_SUFFIXES)
        yield f"'{file.name}' is none of the files that are read ({known})"
    if not entry.get("ranking"):
        yield f"'{name}' has no 'ranking': true in {FILE}, so it holds no pairs"
    for key in NOT_READ:
        if entry.get(key) is not None:
            yield f"'{key}' of '{name}' in {FILE} is not read: use the data as it is"


def load_registry(folder: str, beside: Path, images: str | None) -> Registry:
    """Return the registered data sets of a folder, looked for from here and beside a file.

    Args:
        folder: As the file names it.
        beside: The folder of that file.
        images: Folder of the images, where the file names one.

    Raises:
        RecipeError: If the registry is there and cannot be read.
    """
    for candidate in (Path(folder), beside / folder):
        path = candidate / FILE
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problem = f"it cannot be read as JSON: {error}"
            raise RecipeError(Problem(str(path), problem, "Repair it, or move it away")) from error
        if isinstance(entries, Mapping):
            return Registry(folder=candidate, entries=entries, images=images)
    return Registry(folder=Path(folder), images=images)
