"""Official files of JSON: one object a line, or a list of objects; one file or a folder of some."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidpo_mm.data.files import read_file
from unidpo_mm.errors import DataError, Problem

from .dataset import DataSet, data_set
from .samples import Sample

__all__ = ["JsonRow", "read_lines", "records_of"]


@dataclass
class JsonRow:
    """One object of a file, and what is wrong with it.

    Attributes:
        file: The file.
        where: File and row.
        record: The object.
        several: The file is one of several, so that an id of it may stand in another.
        problems: What was found wrong.
    """

    file: Path
    where: str
    record: Mapping[str, Any]
    several: bool = False
    problems: list[Problem] = field(default_factory=list)

    def text(self, name: str, *, optional: bool = False) -> str:
        """Returns a field as text; a number becomes its digits."""
        value = self.record.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            if value is None and optional:
                return ""
            found = "it is not there" if value is None else f"found {type(value).__name__}"
            self.note(name, found, "Give a text")
            return ""
        return str(value)

    def note(self, name: str, found: str, remedy: str) -> None:
        """Keeps a problem of one field."""
        self.problems.append(Problem(f"{self.where}, field '{name}'", found, remedy))


def read_lines(path: Path, build: Callable[[JsonRow], Sample], *, pattern: str) -> DataSet:
    """Returns the samples of one file, or of the files of a folder that a pattern finds.

    Args:
        path: The file or folder.
        build: Makes a sample of an object, and notes problems in it.
        pattern: Of the files of a folder.

    Raises:
        DataError: With every problem of every row.
    """
    files = sorted(path.glob(pattern)) if path.is_dir() else [path]
    if not files:
        found = f"the folder holds no file {pattern}"
        raise DataError(Problem(str(path), found, "Name the file"))
    problems: list[Problem] = []
    samples = []
    for row in records_of(files, problems):
        samples.append(build(row))
        problems += row.problems
    return data_set(path, samples, files=files, problems=problems)


def records_of(files: Sequence[Path], problems: list[Problem]) -> list[JsonRow]:
    """Returns the objects of files; what is none goes to the problems."""
    rows = []
    for file in files:
        if not file.is_file():
            raise DataError(Problem(str(file), "the file does not exist", "Repair the path"))
        for place, number, record in _read(file):
            where = f"{place} row {number}"
            if isinstance(record, Problem):
                problems.append(record)
            elif not isinstance(record, Mapping):
                found = f"the row is {type(record).__name__}"
                problems.append(Problem(where, found, "Write an object"))
            else:
                rows.append(JsonRow(file, where, record, several=len(files) > 1))
    return rows


def _read(file: Path) -> Any:
    """Yields the records of a file; official .json files may hold one object a line."""
    if file.suffix == ".json" and not _is_list(file):
        from unidpo_mm.data.files import READERS

        return READERS[".jsonl"](file)
    return read_file(file)


def _is_list(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as content:
        return content.read(256).lstrip().startswith("[")
