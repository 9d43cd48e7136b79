"""LLaMA-Factory's registry `dataset_info.json`: an entry names a file and what its columns are."""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem
from ..plugins import suggestion
from .files import Record
from .places import Found, Place, read_place

__all__ = ["read_entry"]

USUAL = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
}
USUAL["openai"] = USUAL["sharegpt"]  # its turns have the keys of messages
"""Formatting -> role of a column -> its usual name, that of our format."""
COMMON = {name: name for name in ("chosen", "rejected", "images", "score_chosen", "score_rejected")}
OTHER_ROLES = ("response", "tools")
"""Roles that an entry of any formatting may name and a ranking does not read."""
ONLY_NAMED = ("system", "history")
"""Columns that have no usual name there: an entry that does not name them does not mean them."""
NOT_UNDERSTOOD = ("videos", "audios", "kto_tag")
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
"""What a sharegpt entry may call the keys of a turn and those who speak."""


def read_entry(path: Path, place: Place) -> Found:
    """Return the records of one entry of a registry.

    Args:
        path: The registry.
        place: Its `subset` names the entry.

    Raises:
        DataError: If the entry is not there or cannot be used.
    """
    entry = _entry(path, place.subset)
    formatting = str(entry.get("formatting", "alpaca"))
    if formatting not in USUAL:
        problem = f"the formatting '{formatting}' is not known"
        raise DataError(_problem(path, place.subset, problem, f"Use one of {', '.join(USUAL)}"))
    if not entry.get("ranking"):
        problem = "the entry is no ranking: it has no chosen and rejected answers"
        raise DataError(_problem(path, place.subset, problem, "Name one with 'ranking': true"))
    _refuse_split(path, place)
    given, tagged = (
        _mapping(path, place.subset, entry, "columns"),
        _mapping(path, place.subset, entry, "tags"),
    )
    refused = [role for role in NOT_UNDERSTOOD if given.get(role)]
    if refused:
        problem = f"the entry names {', '.join(refused)}, which are not understood yet"
        raise DataError(_problem(path, place.subset, problem, "Remove the column"))
    usual = {**USUAL[formatting], **COMMON}
    _refuse_unknown(path, place.subset, "columns", given, {*usual, *NOT_UNDERSTOOD, *OTHER_ROLES})
    _refuse_unknown(path, place.subset, "tags", tagged, set(TAGS))
    inner = _inner(path, place.subset, entry)
    tags = {usual_tag: tagged.get(tag) for tag, usual_tag in TAGS.items()}
    spoken = {name: own for name, own in tags.items() if own not in (None, name)}
    records = inner.records
    most = entry.get("num_samples")
    if most is not None:
        if not isinstance(most, int) or isinstance(most, bool) or not 0 < most < sys.maxsize:
            problem = f"'num_samples' is {str(most)[:40]!r}"
            raise DataError(_problem(path, place.subset, problem, "Give a whole number above 0"))
        records = itertools.islice(records, most)
    if formatting != "alpaca" and spoken:
        own = {role: given.get(role, name) for role, name in usual.items()}
        turned = (own["messages"], own["chosen"], own["rejected"])
        records = _retagged(records, turned, spoken)
    return Found(
        records,
        columns={usual[role]: str(name) for role, name in given.items() if role in usual},
        unnamed=frozenset(role for role in ONLY_NAMED if not given.get(role)),
        format="alpaca" if formatting == "alpaca" else "sharegpt",
        folder=path.parent,
    )


def _refuse_split(path: Path, place: Place) -> None:
    if place.split not in (None, "train"):
        problem = f"split '{place.split}' is asked for, and an entry names its own"
        raise DataError(
            _problem(path, place.subset, problem, "Leave it out, or name another entry")
        )


def _refuse_unknown(
    path: Path, name: str | None, key: str, given: Mapping[str, Any], known: set[str]
) -> None:
    for role, value in given.items():
        if role not in known:
            problem = f"'{key}' names '{role}'{suggestion(str(role), sorted(known))}"
            remedy = f"Use {', '.join(sorted(known))}"
            raise DataError(_problem(path, name, problem, remedy))
        if not isinstance(value, str | None):
            problem = f"'{key}.{role}' is {type(value).__name__}"
            raise DataError(_problem(path, name, problem, "Give a name"))


def _entry(path: Path, name: str | None) -> Mapping[str, Any]:
    try:
        registry = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        problem = f"the registry cannot be read ({error})"
        raise DataError(Problem(str(path), problem, "Write it as JSON")) from error
    entries = registry if isinstance(registry, Mapping) else {}
    if name is None or name not in entries:
        known = ", ".join(entries) or "none"
        asked = "no entry is named" if name is None else f"there is no entry '{name}'"
        problem = f"{asked}{suggestion(name or '', entries)}"
        remedy = f"Name one in the source's 'subset': {known}"
        raise DataError(Problem(str(path), problem, remedy))
    entry = entries[name]
    if not isinstance(entry, Mapping):
        raise DataError(_problem(path, name, "the entry is no object", "Write one"))
    return entry


def _mapping(path: Path, name: str | None, entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    if not isinstance(value, Mapping):
        problem = f"'{key}' is {type(value).__name__}"
        raise DataError(_problem(path, name, problem, "Write it as an object"))
    return value


def _inner(path: Path, name: str | None, entry: Mapping[str, Any]) -> Found:
    """Return the records behind an entry: a file beside the registry, else the hub's."""
    if entry.get("hf_hub_url"):  # it comes first there, too
        split, subset = entry.get("split"), entry.get("subset")
        return read_place(Place(path=str(entry["hf_hub_url"]), split=split, subset=subset))
    if entry.get("file_name"):
        inside = path.parent / str(entry["file_name"])
        if not inside.exists():
            problem = f"the file '{inside}' does not exist"
            raise DataError(_problem(path, name, problem, "Repair 'file_name'"))
        return read_place(Place(path=str(inside)))
    problem = "the entry names neither 'file_name' nor 'hf_hub_url'"
    raise DataError(_problem(path, name, problem, "Name where the data are"))


def _retagged(
    records: Iterator[Record], columns: tuple[str, ...], spoken: Mapping[str, str]
) -> Iterator[Record]:
    """Yield the records with the keys and speakers of their turns by their usual names."""
    names = {own: usual for usual, own in spoken.items()}
    speaker = spoken.get("from", "from")

    def turn(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        renamed = {names.get(key, key): one for key, one in value.items()}
        if isinstance(value.get(speaker), str):
            renamed["from"] = names.get(value[speaker], value[speaker])
        return renamed

    def turns(value: Any) -> Any:
        return [turn(one) for one in value] if isinstance(value, list | tuple) else turn(value)

    for file, number, record in records:
        if isinstance(record, Mapping):
            record = {k: turns(v) if k in columns else v for k, v in record.items()}
        yield file, number, record


def _problem(path: Path, name: str | None, found: str, remedy: str) -> Problem:
    return Problem(f"{path}, entry '{name}'", found, remedy)
