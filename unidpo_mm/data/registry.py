"""LLaMA-Factory's registry `dataset_info.json`, whose entries describe files and their columns."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem
from ..plugins import suggestion
from .files import Record
from .invalid_value import InvalidValue
from .locations import SourceListing, SourceLocation

__all__ = ["read_entry"]

DEFAULT_COLUMNS = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
}
DEFAULT_COLUMNS["openai"] = DEFAULT_COLUMNS["sharegpt"]  # its turns have the keys of messages
"""Formatting -> role of a column -> its default name, which is also its name in our format."""
COMMON = {
    name: name
    for name in (
        *("chosen", "rejected", "images", "videos"),
        *("score_chosen", "score_rejected", "kto_tag"),
    )
}
IGNORED_ROLES = ("response", "tools")
"""Roles that any entry may map, but that are not always used."""
ONLY_MAPPED = ("system", "history")
"""Columns without a default name in LLaMA-Factory: they are ignored unless the entry maps them."""
NOT_SUPPORTED = ("audios",)
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
"""Tag of a sharegpt entry -> default key of a turn, or default name of a speaker."""


def read_entry(
    path: Path, location: SourceLocation, list_source: Callable[[SourceLocation], SourceListing]
) -> SourceListing:
    """Return the records of an entry of a registry.

    `list_source` returns the records at the location that the entry sets.

    Raises:
        DataError: If the entry does not exist or cannot be used.
    """
    entry = _entry(path, location.subset)
    try:
        return _listing(entry, path.parent, location, list_source)
    except InvalidValue as error:
        where = f"{path}, entry '{location.subset}'"
        raise DataError(Problem(where, error.message, error.remedy)) from error


def _listing(
    entry: Any,
    folder: Path,
    location: SourceLocation,
    list_source: Callable[[SourceLocation], SourceListing],
) -> SourceListing:
    if not isinstance(entry, Mapping):
        raise InvalidValue("the entry is not an object", "Write an object")
    formatting = str(entry.get("formatting", "alpaca"))
    if formatting not in DEFAULT_COLUMNS:
        remedy = f"Use one of {', '.join(DEFAULT_COLUMNS)}"
        raise InvalidValue(f"unknown formatting '{formatting}'", remedy)
    if location.split not in (None, "train"):
        problem = f"split '{location.split}' was requested, but entries set their own"
        raise InvalidValue(problem, "Remove 'split', or use another entry")
    defaults = {**DEFAULT_COLUMNS[formatting], **COMMON}
    columns = _mapping(entry, "columns", {*defaults, *NOT_SUPPORTED, *IGNORED_ROLES})
    tags = _mapping(entry, "tags", set(TAGS))
    labeled = bool(columns.get("kto_tag"))
    if not (labeled or entry.get("ranking")):
        problem = "the entry has neither chosen and rejected responses nor labels"
        raise InvalidValue(problem, "Use an entry with 'ranking': true, or with a column 'kto_tag'")
    unsupported = [role for role in NOT_SUPPORTED if columns.get(role)]
    if unsupported:
        problem = f"columns that are not supported yet: {', '.join(unsupported)}"
        raise InvalidValue(problem, "Remove them from the entry")
    maximum = entry.get("num_samples")
    valid = isinstance(maximum, int | None) and not isinstance(maximum, bool)
    if not valid or not (maximum is None or 0 < maximum < sys.maxsize):
        text = f"'num_samples' is {str(maximum)[:40]!r}"
        raise InvalidValue(text, "Use an integer above 0")
    location = replace(_inner_location(entry, folder), streaming=location.streaming)
    inner = list_source(location)
    records: Iterator[Record] = islice(inner.records, maximum)
    names = {TAGS[tag]: name for tag, name in tags.items() if name and name != TAGS[tag]}
    if formatting != "alpaca" and names:
        roles = ("messages", "chosen", "rejected")
        turn_columns = [columns.get(role) or defaults[role] for role in roles]
        records = _with_default_tags(records, turn_columns, names)
    return SourceListing(
        records,
        columns={defaults[r]: str(name) for r, name in columns.items() if r in defaults},
        unmapped=frozenset(role for role in ONLY_MAPPED if not columns.get(role)),
        format=("alpaca" if formatting == "alpaca" else "sharegpt") + "_labeled" * labeled,
        folder=folder,
        files=inner.files,
        fingerprint=json.dumps([entry, inner.fingerprint]),
    )


def _entry(path: Path, name: str | None) -> Any:
    try:
        registry = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        problem = f"the registry cannot be read ({error})"
        raise DataError(Problem(str(path), problem, "Write it as JSON")) from error
    entries = registry if isinstance(registry, Mapping) else {}
    if name is None or name not in entries:
        problem = "no entry is chosen" if name is None else f"there is no entry '{name}'"
        problem += suggestion(name or "", entries)
        remedy = f"Set the source's 'subset' to one of {', '.join(entries)}"
        remedy = remedy if entries else "Use a registry with entries"
        raise DataError(Problem(str(path), problem, remedy))
    return entries[name]


def _mapping(entry: Mapping[str, Any], key: str, roles: set[str]) -> Mapping[str, str | None]:
    names = entry.get(key) or {}
    if not isinstance(names, Mapping):
        raise InvalidValue(f"'{key}' is of type {type(names).__name__}", "Write an object")
    for role, value in names.items():
        if role not in roles:
            hint = suggestion(str(role), sorted(roles))
            remedy = f"Use one of {', '.join(sorted(roles))}"
            raise InvalidValue(f"unknown name '{role}' in '{key}'{hint}", remedy)
        if not isinstance(value, str | None):
            raise InvalidValue(f"'{key}.{role}' is of type {type(value).__name__}", "Use a string")
    return names


def _inner_location(entry: Mapping[str, Any], folder: Path) -> SourceLocation:
    """Return the location of the records: a hub, or else a file relative to the registry."""
    hub = entry.get("hf_hub_url")
    if hub:  # as in LLaMA-Factory, it has precedence
        split, subset = entry.get("split"), entry.get("subset")
        return SourceLocation(path=str(hub), split=split, subset=subset)
    if not entry.get("file_name"):
        problem = "the entry has neither 'file_name' nor 'hf_hub_url'"
        raise InvalidValue(problem, "Add the location of the data")
    path = folder / str(entry["file_name"])
    try:
        exists = path.exists()
    except OSError:  # for example, the name is too long
        exists = False
    if not exists:
        raise InvalidValue(f"the file '{path}' does not exist", "Correct 'file_name'")
    return SourceLocation(path=str(path))


def _with_default_tags(
    records: Iterable[Record], columns: Sequence[str], tags: Mapping[str, str]
) -> Iterator[Record]:
    """Yield the records with the keys and speakers in their turns renamed to the defaults."""
    defaults = {name: default for default, name in tags.items()}
    speaker = tags.get("from", "from")

    def turn(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        renamed = {defaults.get(key, key): item for key, item in value.items()}
        if isinstance(value.get(speaker), str):
            renamed["from"] = defaults.get(value[speaker], value[speaker])
        return renamed

    def turns(value: Any) -> Any:
        return [turn(item) for item in value] if isinstance(value, list | tuple) else turn(value)

    for file, number, record in records:
        if isinstance(record, Mapping):
            record = {k: turns(v) if k in columns else v for k, v in record.items()}
        yield file, number, record
