"""Data sets that a file names by a registered name: what `dataset_info.json` says of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Problem, RecipeError

__all__ = ["Registry", "load_registry", "read_columns"]

FILE = "dataset_info.json"
READ_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
LAYOUTS = {"alpaca": {"prompt": "instruction"}, "sharegpt": {"messages": "conversations"}}
"""Layout -> role of the column of the prompt -> its name where the registry says nothing."""
PAIR = {"chosen": "chosen", "rejected": "rejected"}
OPTIONAL = ("query", "images", "videos", "audios", "system", "score_chosen", "score_rejected")
"""Roles of columns that are there only where the registry says so."""
NOT_READ = ("subset", "folder", "num_samples", "revision")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The registered data sets of a folder.

    Attributes:
        folder: Where the data files are, as it is written into a recipe.
        entries: Name -> what is registered of it; None where there is no such file.
        images: Folder of the pictures, where it is another one.
    """

    folder: Path
    entries: Mapping[str, Any] | None = None
    images: str | None = None

    def source(self, name: str) -> tuple[dict[str, Any], list[str]]:
        """Returns the source of a recipe for a registered name, and what to know of it."""
        entry = (self.entries or {}).get(name)
        if not isinstance(entry, Mapping):
            pictures = {} if self.images is None else {"images": self.images}
            why = "there is no" if self.entries is None else f"'{name}' is not in"
            where = (self.folder / FILE).as_posix()
            text = f"{why} {where}, so '{name}' stands as the path: name the file"
            return {"path": name, **pictures}, [text]
        found = _Entry(name, entry)
        source = {"path": self._path(found), "name": name}
        if found.pictures or self.images is not None:
            source["images"] = self.images or str(self.folder)
        if isinstance(entry.get("split"), str):
            source["split"] = entry["split"]
        return source, [*found.notes, *found.about_columns()]

    def _path(self, found: "_Entry") -> str:
        entry = found.entry
        for key in ("hf_hub_url", "ms_hub_url", "script_url", "cloud_file_name"):
            if key in entry:
                if key != "hf_hub_url":
                    text = f"'{found.name}' comes from {key}, which is not read: name a file"
                    found.notes.append(text)
                return str(entry[key])
        path = self.folder / str(entry.get("file_name", found.name))
        if path.suffix not in READ_SUFFIXES:
            known = ", ".join(READ_SUFFIXES)
            found.notes.append(f"'{path.name}' is none of the files that are read ({known})")
        return path.as_posix()


@dataclass(slots=True)
class _Entry:
    """One registered data set."""

    name: str
    entry: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> dict[str, str]:
        """Role of each column of a pair -> its name in the file."""
        given = self.entry.get("columns")
        given = given if isinstance(given, Mapping) else {}
        layout = LAYOUTS.get(str(self.entry.get("formatting", "alpaca")), {})
        names = {role: given.get(role, usual) for role, usual in {**layout, **PAIR}.items()}
        names |= {role: given[role] for role in OPTIONAL if given.get(role)}
        return {role: str(name) for role, name in names.items()}

    @property
    def pictures(self) -> bool:
        """Whether its rows have pictures."""
        return "images" in self.columns

    def about_columns(self) -> Iterator[str]:
        """Yields what is not read of the rows."""
        wrong = read_columns(frozenset(self.columns.values()))
        if wrong:
            yield f"of the rows of '{self.name}' {wrong}"
        for key in NOT_READ:
            if self.entry.get(key) is not None:
                yield f"'{key}' of '{self.name}' in {FILE} is not read: use the data as it is"


def read_columns(columns: frozenset[str]) -> str:
    """Says what the formats of this package do not read of rows with some columns, or nothing."""
    from ..plugins import format_modules  # torch, through the records

    formats = [module.FORMAT for module in format_modules().values()]
    fitting = [one for one in formats if one.required <= columns]
    nearest = max(fitting or formats, key=lambda one: len(one.required & columns))
    unread, missing = columns - nearest.known, nearest.required - columns
    if not unread and not missing:
        return ""
    columns_read = f"the columns {_quoted(unread)} are not read" if unread else ""
    if not missing:
        return columns_read
    text = (
        f"{_quoted(missing)} is missing: make a copy of the data with these columns, conversations "
        "as lists of {role, content} and answers as text"
    )
    return f"{columns_read}, and {text}" if unread else text


def _quoted(names: frozenset[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def load_registry(folder: str, beside: Path, images: str | None) -> Registry:
    """Returns the registered data sets of a folder, looked for from here and beside a file.

    Args:
        folder: As the file names it.
        beside: The folder of that file.
        images: Folder of the pictures, where the file names one.

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
            found = f"it cannot be read as JSON: {error}"
            raise RecipeError(Problem(str(path), found, "Repair it, or move it away")) from error
        if isinstance(entries, Mapping):
            return Registry(folder=candidate, entries=entries, images=images)
    return Registry(folder=Path(folder), images=images)
