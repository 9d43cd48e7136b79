"""Reads records from files, folders, the hub and registries; a broken line does not end a file.

A reader yields (file, row number from 1, record), or a `Problem` in place of the record.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem

__all__ = ["Place", "Record", "read_place"]

Record = tuple[str, int, Any]

SPLIT = re.compile(r"(^|[-_.])(train|test|valid|validation|val|dev|eval)([-_.0-9]|$)")
"""A name of a file that says which split it is."""

BATCH = 1024
"""Rows of a Parquet or Arrow file that are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the records of a source are.

    Attributes:
        path: A JSON, JSONL, Parquet or Arrow file, a folder that holds such files or was written
            by `datasets`, a registry `dataset_info.json`, or a data set on the hub.
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
    if path.name == "dataset_info.json" and path.is_file():
        from .registry import read_entry

        return read_entry(path, place)
    if path.is_file():
        _refuse(place, split="a file has none", subset="a file has none")
        return Found(_file(path))
    if path.is_dir():
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
    if path.suffix not in READERS:
        found = f"'{path.suffix}' is no format of data files"
        known = ", ".join(READERS)
        raise DataError(Problem(str(path), found, f"Give a file of {known}"))
    return READERS[path.suffix](path)


def _folder(path: Path, place: Place) -> Iterator[Record]:
    """Returns the records of all data files of a folder, file by file.

    A folder that `datasets` saved, and one whose files are splits, as a clone of a data set on a
    hub is, are read by `datasets`.
    """
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path, place)
    files = sorted(file for file in path.iterdir() if file.suffix in READERS)
    if not files and any(file.suffix in READERS for file in path.rglob("*")):
        return _hub(place)
    if any(SPLIT.search(file.stem) for file in files):
        return _hub(place)
    _refuse(place, split="a folder of files has none", subset="a folder of files has none")
    kinds = sorted({file.suffix for file in files})
    if len(kinds) > 1:
        found = f"the folder holds files of several kinds ({', '.join(kinds)})"
        raise DataError(Problem(str(path), found, "Name a file, or sort them into folders"))
    if not files:
        found = "the folder holds no Parquet, JSONL, JSON or Arrow file"
        raise DataError(Problem(str(path), found, "Name a file, or a folder that holds some"))
    return itertools.chain.from_iterable(map(_file, files))


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield str(path), number, json.loads(line.decode("utf-8-sig"))
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
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        found = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        raise DataError(Problem(str(path), found, "Write the file as UTF-8")) from error
    except (ValueError, RecursionError) as error:
        found = f"the file is no JSON ({_why(error)})"
        remedy = "Write a list of objects, or one object a line in a .jsonl file"
        raise DataError(Problem(str(path), found, remedy)) from error
    if not isinstance(content, list):
        found = f"the file holds {type(content).__name__}"
        raise DataError(Problem(str(path), found, "Write a list of objects"))
    for number, record in enumerate(content, start=1):
        yield str(path), number, record


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return str(error)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(BATCH):
            for record in batch.to_pylist():
                number += 1
                yield str(path), number, record
    except (pa.ArrowException, OSError) as error:
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Parquet file ({error})", remedy)) from error


def _arrow(path: Path) -> Iterator[Record]:
    from datasets import Dataset

    try:
        dataset = Dataset.from_file(str(path))
    except Exception as error:  # whatever arrow or the library find wrong with the bytes
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Arrow file ({error})", remedy)) from error
    yield from _of_dataset(dataset, str(path))


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
    """Yields records with pictures as bytes or paths, undecoded."""
    from datasets import Image

    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            dataset = dataset.cast_column(name, type(feature)(Image(decode=False)))
    for number, record in enumerate(dataset, start=1):
        yield place, number, record


def _hub(place: Place) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(place.path, place.subset, split=place.split or "train")
    except Exception as error:  # the library raises many kinds for a name it cannot reach
        found = f"neither a file nor a data set that can be reached ({error})"
        raise DataError(Problem(place.path, found, "Repair the path")) from error
    yield from _of_dataset(dataset, place.path)


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
