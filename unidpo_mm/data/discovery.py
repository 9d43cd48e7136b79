"""Find the records of a source: in a file, a directory, a registry, or a data set on a hub."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import DataError, Problem
from .files import READERS, Record, kind_of, read_file
from .hf_datasets import hub_listing, saved_records
from .locations import SourceListing, SourceLocation
from .registry import read_entry

__all__ = ["WHOLE_FILE", "list_source"]

SPLIT = re.compile(r"(?:^|[-_.])(train|test|valid|validation|val|dev|eval)(?:[-_.0-9]|$)")
"""The name of a split in the name of a file."""
SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}")
"""The name of one of several files of a split, after the name of the split."""
SPLIT_ALIASES = dict.fromkeys(("valid", "val", "dev", "eval"), "validation")
METADATA_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "state.json"})
"""JSON files of a data directory that contain no rows."""

WHOLE_FILE = 0
"""Row number of a problem that concerns the whole file."""

MAX_NAMES = 4
"""Files of a directory that a message lists."""


def list_source(location: SourceLocation) -> SourceListing:
    """Return the records at a location.

    Raises:
        DataError: If nothing there can be read.
    """
    path = Path(location.path)
    try:
        is_file, is_dir = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:  # for example, the name is too long
        problem = f"the path is not valid ({error})"
        raise DataError(Problem(location.path, problem, "Correct the path")) from error
    if is_file and path.name == "dataset_info.json":
        return read_entry(path, location, list_source)
    if is_file:
        location.refuse(split="a file has no splits", subset="a file has no subsets")
        return SourceListing(read_file(path), files=(path,))
    return _directory(path, location) if is_dir else hub_listing(location)


def _directory(path: Path, location: SourceLocation) -> SourceListing:
    """Return the records of all data files of a directory, or of one split, file by file.

    In a clone of a data set repository, the files may be in subdirectories. `datasets` reads the
    directories that it has saved, and configurations.
    """
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = tuple(sorted(file for file in path.rglob("*") if file.is_file()))
        return SourceListing(saved_records(location), files=saved)
    if location.subset is not None:
        return hub_listing(location)
    files = _data_files(path.iterdir()) or _data_files(path.rglob("*"))
    if not files:
        problem = "the directory contains no Parquet, JSONL, JSON or Arrow file"
        raise DataError(Problem(location.path, problem, "Use a file, or a directory with data"))
    files = _split_files(files, location)
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        problem = f"the directory contains files of several kinds ({', '.join(kinds)})"
        remedy = "Use one of the files, or move each kind into its own directory"
        raise DataError(Problem(location.path, problem, remedy))
    return SourceListing(_file_records(files), files=tuple(files))


def _data_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if kind_of(path) in READERS
        and path.name not in METADATA_FILES
        and not path.name.startswith(".")
        and path.is_file()
    )


def _split_files(files: Sequence[Path], location: SourceLocation) -> list[Path]:
    """Return the files of the requested split; all of them if no name contains a split."""
    splits = {file: _split_of(file) for file in files}
    with_split = [file.name for file in files if splits[file]]
    without_split = [file.name for file in files if not splits[file]]
    if not with_split:
        location.refuse(split="no name of a file in the directory contains a split")
        return list(files)
    if without_split:
        problem = (
            f"the names of {_some(with_split)} contain a split, those of {_some(without_split)} "
            "do not"
        )
        remedy = "List the files as separate sources, or give each split its own directory"
        raise DataError(Problem(location.path, problem, remedy))
    requested = location.chosen_split(sorted(set(filter(None, splits.values()))), SPLIT_ALIASES)
    return [file for file, split in splits.items() if split == requested]


def _split_of(file: Path) -> str | None:
    """Return the split in the name of a file."""
    shard = SHARD.fullmatch(file.name.partition(".")[0])
    if shard is not None:
        return shard[1]
    match = SPLIT.search(file.name)
    return SPLIT_ALIASES.get(match[1], match[1]) if match else None


def _file_records(files: Iterable[Path]) -> Iterator[Record]:
    """Yield the records of files, and the problems of files that cannot be read."""
    for file in files:
        record = None
        try:
            for record in read_file(file):
                yield record
            if record is None:
                raise DataError(Problem(str(file), "the file contains no rows", "Remove the file"))
        except DataError as error:
            for problem in error.problems:
                yield str(file), WHOLE_FILE, problem


def _some(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
