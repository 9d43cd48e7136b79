"""Finds the records of a source: in a file, a folder, on a hub, or where a registry says."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem
from .files import READERS, ArrowRecord, Record, kind_of, read_file

__all__ = ["OF_FILE", "Found", "Place", "read_place", "unformatted"]

SPLIT = re.compile(r"(?:^|[-_.])(train|test|valid|validation|val|dev|eval)(?:[-_.0-9]|$)")
"""A name of a file that says which split it is."""
SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}")
"""A file of a split in pieces; what stands in front is the split's whole name."""
SAME_SPLIT = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}
"""What a split is called beside its usual name."""
ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "state.json"})
"""Files that are about data and hold none."""

OF_FILE = 0
"""In place of the number of a row: the problem is one of the whole file."""
REPAIR = "Repair the path"

NAMED = 4
"""Files of a folder that a message names."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the records of a source are.

    Attributes:
        path: A JSON, JSONL (also in gzip), Parquet or Arrow file, a folder that holds such files or
            was written by `datasets`, a registry `dataset_info.json`, or a data set on the hub.
        split: Split of a data set on the hub or in a folder that `datasets` wrote.
        subset: Configuration of a data set on the hub, or name of an entry of a registry.
    """

    path: str
    split: str | None = None
    subset: str | None = None


@dataclass(frozen=True)
class Found:
    """Records, and what a registry says of their columns.

    Attributes:
        records: The records.
        columns: Usual name of a column -> its name in the records.
        format: The format that a registry names.
        unnamed: Usual names of columns that count only where the registry names them.
        folder: Where relative image paths start; None for the folder of the path.
    """

    records: Iterator[Record]
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    unnamed: frozenset[str] = frozenset()
    folder: Path | None = None


def read_place(place: Place) -> Found:
    """Return the records of a place.

    Raises:
        DataError: If there is nothing that can be read.
    """
    path = Path(place.path)
    try:
        is_file, is_dir = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise DataError(
            Problem(place.path, f"no file has such a name ({error})", REPAIR)
        ) from error
    if is_file and path.name == "dataset_info.json":
        from .registry import read_entry

        return read_entry(path, place)
    if is_file:
        _refuse(place, split="a file has none", subset="a file has none")
        return Found(read_file(path))
    if is_dir:
        return Found(_folder(path, place))
    return Found(_hub(place))


def _refuse(place: Place, **why: str) -> None:
    """Refuse a split or a subset where there is none; `train` is the split of everything."""
    for name, reason in why.items():
        value = getattr(place, name)
        if value is not None and not (name == "split" and value == "train"):
            problem = f"{name} '{value}' is asked for and {reason}"
            raise DataError(Problem(place.path, problem, f"Name the file itself, without a {name}"))


def _folder(path: Path, place: Place) -> Iterator[Record]:
    """Return the records of all data files of a folder, or of those of one split, file by file.

    The files of a clone of a data set on a hub may lie in folders below. A folder that `datasets`
    saved, and a configuration, are read by `datasets`.
    """
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path, place)
    if place.subset is not None:
        return _hub(place)
    files = _data_files(path.iterdir()) or _data_files(path.rglob("*"))
    if not files:
        problem = "the folder holds no Parquet, JSONL, JSON or Arrow file"
        raise DataError(Problem(str(path), problem, "Name a file, or a folder that holds some"))
    files = _of_split(files, place)
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        problem = f"the folder holds files of several kinds ({', '.join(kinds)})"
        raise DataError(Problem(str(path), problem, "Name a file, or sort them into folders"))
    return _one_by_one(files)


def _data_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if kind_of(path) in READERS
        and path.name not in ABOUT
        and not path.name.startswith(".")
        and path.is_file()
    )


def _of_split(files: Sequence[Path], place: Place) -> list[Path]:
    """Return the files of the split asked for; of files without splits all."""
    splits = {file: _split_of(file) for file in files}
    named = [file.name for file, split in splits.items() if split]
    others = [file.name for file, split in splits.items() if not split]
    if not named:
        reason = "a folder of files has none"
        _refuse(place, split=reason)
        return list(files)
    if others:
        problem = f"{_some(named)} say which split they are, {_some(others)} do not"
        remedy = "Name the files as sources one by one, or give each split a folder"
        raise DataError(Problem(place.path, problem, remedy))
    known = sorted(set(filter(None, splits.values())))
    asked = place.split or "train"
    asked = asked if asked in known else SAME_SPLIT.get(asked, asked)
    if asked not in known:
        problem = f"there is no split '{asked}' among {', '.join(known)}"
        remedy = "Name one of them in the source's 'split'"
        raise DataError(Problem(place.path, problem, remedy))
    return [file for file, split in splits.items() if split == asked]


def _split_of(file: Path) -> str | None:
    """Return the split that the name of a file says it is."""
    stem = file.name.partition(".")[0] if SHARD.match(file.name) else file.name
    shard = SHARD.fullmatch(stem)
    if shard is not None:
        return shard[1]
    found = SPLIT.search(file.name)
    return SAME_SPLIT.get(found[1], found[1]) if found else None


def _one_by_one(files: Iterable[Path]) -> Iterator[Record]:
    """Yield the records of files; one that cannot be read does not end the others."""
    for file in files:
        empty = True
        try:
            for record in read_file(file):
                empty = False
                yield record
        except DataError as error:
            empty = False
            for problem in error.problems:
                yield str(file), OF_FILE, problem
        if empty:
            problem = Problem(str(file), "the file holds no row", "Remove it, or give it rows")
            yield str(file), OF_FILE, problem


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _saved(path: Path, place: Place) -> Iterator[Record]:
    """Yield the records of a folder that `save_to_disk` of `datasets` wrote."""
    from datasets import DatasetDict, load_from_disk

    _refuse(Place(path=place.path, subset=place.subset), subset="a saved data set has none")
    try:
        dataset = load_from_disk(str(path))
    except Exception as error:  # whatever the library finds wrong with the folder
        problem = f"the saved data set cannot be read ({error})"
        raise DataError(Problem(str(path), problem, "Save it again")) from error
    if not isinstance(dataset, DatasetDict):
        _refuse(place, split="this data set was saved without splits")
        return _of_dataset(dataset, str(path))
    split = place.split or "train"
    if split not in dataset:
        problem = f"there is no split '{split}' among {', '.join(dataset)}"
        raise DataError(Problem(str(path), problem, "Name one of them in the source's 'split'"))
    return _of_dataset(dataset[split], str(path))


def _of_dataset(dataset: Any, place: str) -> Iterator[Record]:
    for number, record in enumerate(undecoded(dataset), start=1):
        yield place, number, ArrowRecord(record)


def unformatted(dataset: Any) -> Any:
    """Return a data set whose arrays and tensors come as lists; a transform of the user stays."""
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":
        return dataset
    return undecoded(dataset.with_format(None))


def undecoded(dataset: Any) -> Any:
    """Return a data set of `datasets` whose images come as bytes or paths, wherever they are."""
    if not getattr(dataset, "features", None):
        return dataset
    return dataset.cast(type(dataset.features)(_undecoded(dict(dataset.features))))


def _undecoded(feature: Any) -> Any:
    from datasets import Image

    if isinstance(feature, Image):
        return Image(decode=False)
    if isinstance(feature, Mapping):
        return {name: _undecoded(one) for name, one in feature.items()}
    if isinstance(feature, list):
        return [_undecoded(one) for one in feature]
    inner = getattr(feature, "feature", None)
    if inner is not None and dataclasses.is_dataclass(feature) and not isinstance(feature, type):
        return dataclasses.replace(feature, feature=_undecoded(inner))
    return feature


def _hub(place: Place) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(place.path, place.subset, split=place.split or "train")
    except Exception as error:  # the library raises many kinds for a name it cannot reach
        problem = f"neither a file nor a data set that can be reached ({error})"
        split = "split" in str(error)  # the library then names those that there are
        remedy = "Name one in the source's 'split'" if split else REPAIR
        raise DataError(Problem(place.path, problem, remedy)) from error
    yield from _of_dataset(dataset, place.path)
