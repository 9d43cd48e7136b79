"""Reads records from files, folders, the hub and registries; a broken line does not end a file.

A reader yields (file, row number from 1, record), or a `Problem` in place of the record.
"""

import dataclasses
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import DataError, Problem

__all__ = ["OF_FILE", "Found", "Place", "Record", "read_place", "undecoded"]

Record = tuple[str, int, Any]

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

UNREADABLE = (OSError, EOFError, zlib.error)
"""What is raised where bytes cannot be read, or packed ones are cut or broken."""

BATCH = 1024
"""Rows of a Parquet or Arrow file that are in memory at once."""


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
        folder: Where relative picture paths start; None for the folder of the path.
    """

    records: Iterator[Record]
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    folder: Path | None = None


def read_place(place: Place) -> Found:
    """Returns the records of a place.

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
        return Found(_file(path))
    if is_dir:
        return Found(_folder(path, place))
    return Found(_hub(place))


def _refuse(place: Place, **why: str) -> None:
    """Refuses a split or a subset where there is none; `train` is the split of everything."""
    for name, reason in why.items():
        value = getattr(place, name)
        if value is not None and not (name == "split" and value == "train"):
            found = f"{name} '{value}' is asked for and {reason}"
            raise DataError(Problem(place.path, found, f"Name the file itself, without a {name}"))


def _file(path: Path) -> Iterator[Record]:
    kind = _kind(path)
    if kind not in READERS:
        found = f"'{kind}' is no format of data files"
        known = ", ".join(READERS)
        raise DataError(Problem(str(path), found, f"Give a file of {known}"))
    return READERS[kind](path)


def _kind(path: Path) -> str:
    """Returns the ending of a file's name, with what it was before it was compressed."""
    suffixes = path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]
    return "".join(suffixes).lower()


def _folder(path: Path, place: Place) -> Iterator[Record]:
    """Returns the records of all data files of a folder, or of those of one split, file by file.

    The files of a clone of a data set on a hub may lie in folders below. A folder that `datasets`
    saved, and a configuration, are read by `datasets`.
    """
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path, place)
    if place.subset is not None:
        return _hub(place)
    files = _data_files(path.iterdir()) or _data_files(path.rglob("*"))
    if not files:
        found = "the folder holds no Parquet, JSONL, JSON or Arrow file"
        raise DataError(Problem(str(path), found, "Name a file, or a folder that holds some"))
    files = _of_split(files, place)
    kinds = sorted({_kind(file) for file in files})
    if len(kinds) > 1:
        found = f"the folder holds files of several kinds ({', '.join(kinds)})"
        raise DataError(Problem(str(path), found, "Name a file, or sort them into folders"))
    return _one_by_one(files)


def _data_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if _kind(path) in READERS
        and path.name not in ABOUT
        and not path.name.startswith(".")
        and path.is_file()
    )


def _of_split(files: Sequence[Path], place: Place) -> list[Path]:
    """Returns the files of the split asked for; of files without splits all."""
    splits = {file: _split_of(file) for file in files}
    named = [file.name for file, split in splits.items() if split]
    others = [file.name for file, split in splits.items() if not split]
    if not named:
        reason = "a folder of files has none"
        _refuse(place, split=reason)
        return list(files)
    if others:
        found = f"{_some(named)} say which split they are, {_some(others)} do not"
        remedy = "Name the files as sources one by one, or give each split a folder"
        raise DataError(Problem(place.path, found, remedy))
    known = sorted(set(filter(None, splits.values())))
    asked = place.split or "train"
    asked = asked if asked in known else SAME_SPLIT.get(asked, asked)
    if asked not in known:
        found = f"there is no split '{asked}' among {', '.join(known)}"
        remedy = "Name one of them in the source's 'split'"
        raise DataError(Problem(place.path, found, remedy))
    return [file for file, split in splits.items() if split == asked]


def _split_of(file: Path) -> str | None:
    """Returns the split that the name of a file says it is."""
    stem = file.name.partition(".")[0] if SHARD.match(file.name) else file.name
    shard = SHARD.fullmatch(stem)
    if shard is not None:
        return shard[1]
    found = SPLIT.search(file.name)
    return SAME_SPLIT.get(found[1], found[1]) if found else None


def _one_by_one(files: Iterable[Path]) -> Iterator[Record]:
    """Yields the records of files; one that cannot be read does not end the others."""
    for file in files:
        empty = True
        try:
            for record in _file(file):
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


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _jsonl(path: Path) -> Iterator[Record]:
    try:
        yield from _lines(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(Problem(str(path), f"the file cannot be read ({error})", "Repair the file"))


def _lines(path: Path) -> Iterator[Record]:
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield str(path), number, _parsed(line)
            except UnicodeDecodeError as error:
                found = f"the line is no UTF-8 ({error.reason} at byte {error.start})"
                problem = Problem(f"{path} row {number}", found, "Write the file as UTF-8")
                yield str(path), number, problem
            except (ValueError, RecursionError) as error:
                found = f"the line is no JSON ({_why(error)})"
                remedy = "Write one JSON object a line"
                yield str(path), number, Problem(f"{path} row {number}", found, remedy)


def _json(path: Path) -> Iterator[Record]:
    try:
        with _opened(path) as file:
            content = _parsed(file.read())
    except UnicodeDecodeError as error:
        found = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        raise DataError(Problem(str(path), found, "Write the file as UTF-8")) from error
    except (ValueError, RecursionError) as error:
        found = f"the file is no JSON ({_why(error)})"
        remedy = "Write a list of objects, or one object a line in a .jsonl file"
        raise DataError(Problem(str(path), found, remedy)) from error
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, list):
        found = f"the file holds {type(content).__name__}"
        raise DataError(Problem(str(path), found, "Write a list of objects"))
    for number, record in enumerate(content, start=1):
        yield str(path), number, record


def _parsed(content: bytes) -> Any:
    return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object of JSON, of which no key may stand twice: one value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' stands twice in an object")
    return found


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return str(error)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from _of_batches(pq.ParquetFile(path).iter_batches(BATCH), path)
    except (pa.ArrowException, OSError) as error:
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Parquet file ({error})", remedy)) from error


def _arrow(path: Path) -> Iterator[Record]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                batches: Iterable[Any] = pa.ipc.open_stream(file)
            except pa.ArrowInvalid:  # the other of the two kinds of Arrow files
                found = pa.ipc.open_file(file)
                batches = map(found.get_batch, range(found.num_record_batches))
            yield from _of_batches(batches, path)
    except (pa.ArrowException, OSError) as error:
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Arrow file ({error})", remedy)) from error


def _of_batches(batches: Iterable[Any], path: Path) -> Iterator[Record]:
    number = 0
    for batch in batches:
        names = batch.schema.names
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            found = f"the column '{twice[0]}' is there twice"
            raise DataError(Problem(str(path), found, "Give each column its own name"))
        try:
            records = batch.to_pylist()
        except (ValueError, OverflowError) as error:
            found = f"a value after row {number} cannot be read ({error})"
            raise DataError(Problem(str(path), found, "Write the file again")) from error
        for record in records:
            number += 1
            yield str(path), number, record


def _saved(path: Path, place: Place) -> Iterator[Record]:
    """Yields the records of a folder that `save_to_disk` of `datasets` wrote."""
    from datasets import DatasetDict, load_from_disk

    _refuse(Place(path=place.path, subset=place.subset), subset="a saved data set has none")
    try:
        dataset = load_from_disk(str(path))
    except Exception as error:  # whatever the library finds wrong with the folder
        found = f"the saved data set cannot be read ({error})"
        raise DataError(Problem(str(path), found, "Save it again")) from error
    if not isinstance(dataset, DatasetDict):
        _refuse(place, split="this data set was saved without splits")
        return _of_dataset(dataset, str(path))
    split = place.split or "train"
    if split not in dataset:
        found = f"there is no split '{split}' among {', '.join(dataset)}"
        raise DataError(Problem(str(path), found, "Name one of them in the source's 'split'"))
    return _of_dataset(dataset[split], str(path))


def _of_dataset(dataset: Any, place: str) -> Iterator[Record]:
    for number, record in enumerate(undecoded(dataset), start=1):
        yield place, number, record


def undecoded(dataset: Any) -> Any:
    """Returns a data set of `datasets` whose pictures come as bytes or paths, wherever they are."""
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
        found = f"neither a file nor a data set that can be reached ({error})"
        split = "split" in str(error)  # the library then names those that there are
        remedy = "Name one in the source's 'split'" if split else REPAIR
        raise DataError(Problem(place.path, found, remedy)) from error
    yield from _of_dataset(dataset, place.path)


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".jsonl.gz": _jsonl,
    ".json.gz": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
