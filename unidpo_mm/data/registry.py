"""LLaMA-Factory's registry `dataset_info.json`, whose entries describe files and their columns."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from ..errors import DataError, Problem
from ..plugins import suggestion
from .files import Record
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
"""Formatting -> role of a column -> its default name, which is that of our format."""
COMMON = {name: name for name in ("chosen", "rejected", "images", "score_chosen", "score_rejected")}
IGNORED_ROLES = ("response", "tools")
"""Roles that an entry of any formatting may map and that a ranking does not read."""
ONLY_MAPPED = ("system", "history")
"""Columns without a default name in LLaMA-Factory: they are ignored unless the entry maps them."""
NOT_SUPPORTED = ("videos", "audios", "kto_tag")
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

    Args:
        path: The registry.
        location: Its location; `subset` is the name of the entry.
        list_source: Returns the records at the location that the entry sets.

    Raises:
        DataError: If the entry does not exist or cannot be used.
    """
    return _EntryReader(path, location).read(list_source)


class _EntryReader:
    """Reads one entry; the first problem ends it."""

    def __init__(self, path: Path, location: SourceLocation) -> None:
        self.path, self.location = path, location
        self.entry = self._entry(location.subset)

    def read(self, list_source: Callable[[SourceLocation], SourceListing]) -> SourceListing:
        formatting = str(self.entry.get("formatting", "alpaca"))
        if formatting not in DEFAULT_COLUMNS:
            self._fail(f"unknown formatting '{formatting}'", f"Use {', '.join(DEFAULT_COLUMNS)}")
        if not self.entry.get("ranking"):
            problem = "the entry has no chosen and rejected responses"
            self._fail(problem, "Use an entry with 'ranking': true")
        if self.location.split not in (None, "train"):
            problem = f"split '{self.location.split}' was requested, but entries set their own"
            self._fail(problem, "Remove 'split', or use another entry")
        defaults = {**DEFAULT_COLUMNS[formatting], **COMMON}
        columns = self._mapping("columns", {*defaults, *NOT_SUPPORTED, *IGNORED_ROLES})
        tags = self._mapping("tags", set(TAGS))
        unsupported = [role for role in NOT_SUPPORTED if columns.get(role)]
        if unsupported:
            problem = f"{', '.join(unsupported)} are not supported yet"
            self._fail(problem, "Remove the column from the entry")
        maximum = self._max_records()
        records: Iterator[Record] = islice(list_source(self._inner_location()).records, maximum)
        names = {TAGS[tag]: name for tag, name in tags.items() if name and name != TAGS[tag]}
        if formatting != "alpaca" and names:
            roles = ("messages", "chosen", "rejected")
            turn_columns = [columns.get(role, defaults[role]) for role in roles]
            records = _with_default_tags(records, turn_columns, names)
        return SourceListing(
            records,
            columns={defaults[r]: str(name) for r, name in columns.items() if r in defaults},
            unmapped=frozenset(role for role in ONLY_MAPPED if not columns.get(role)),
            format="alpaca" if formatting == "alpaca" else "sharegpt",
            folder=self.path.parent,
        )

    def _entry(self, name: str | None) -> Mapping[str, Any]:
        try:
            registry = json.loads(self.path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            problem = f"the registry cannot be read ({error})"
            raise DataError(Problem(str(self.path), problem, "Write it as JSON")) from error
        entries = registry if isinstance(registry, Mapping) else {}
        if name is None or name not in entries:
            problem = "no entry is set" if name is None else f"there is no entry '{name}'"
            problem += suggestion(name or "", entries)
            remedy = f"Set the source's 'subset' to one of {', '.join(entries) or 'none'}"
            raise DataError(Problem(str(self.path), problem, remedy))
        entry = entries[name]
        if not isinstance(entry, Mapping):
            self._fail("the entry is not an object", "Write an object")
        return entry

    def _mapping(self, key: str, roles: set[str]) -> Mapping[str, str | None]:
        names = self.entry.get(key) or {}
        if not isinstance(names, Mapping):
            self._fail(f"'{key}' is {type(names).__name__}", "Write an object")
        for role, value in names.items():
            if role not in roles:
                hint = suggestion(str(role), sorted(roles))
                remedy = f"Use {', '.join(sorted(roles))}"
                self._fail(f"unknown name '{role}' in '{key}'{hint}", remedy)
            if not isinstance(value, str | None):
                self._fail(f"'{key}.{role}' is {type(value).__name__}", "Use a string")
        return names

    def _inner_location(self) -> SourceLocation:
        """Return the location of the records: on a hub, else a file relative to the registry."""
        if self.entry.get("hf_hub_url"):  # as in LLaMA-Factory, it has precedence
            return SourceLocation(
                path=str(self.entry["hf_hub_url"]),
                split=self.entry.get("split"),
                subset=self.entry.get("subset"),
            )
        if not self.entry.get("file_name"):
            problem = "the entry has neither 'file_name' nor 'hf_hub_url'"
            self._fail(problem, "Add the location of the data")
        path = self.path.parent / str(self.entry["file_name"])
        if not path.exists():
            self._fail(f"the file '{path}' does not exist", "Correct 'file_name'")
        return SourceLocation(path=str(path))

    def _max_records(self) -> int | None:
        number = self.entry.get("num_samples")
        if number is None:
            return None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < sys.maxsize:
            self._fail(f"'num_samples' is {str(number)[:40]!r}", "Use an integer above 0")
        return number

    def _fail(self, message: str, remedy: str) -> NoReturn:
        where = f"{self.path}, entry '{self.location.subset}'"
        raise DataError(Problem(where, message, remedy))


def _with_default_tags(
    records: Iterable[Record], columns: Sequence[str], tags: Mapping[str, str]
) -> Iterator[Record]:
    """Yield the records with the default keys and speakers in their turns."""
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
