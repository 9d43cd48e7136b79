"""Official JSON files: one object per line or a list of objects, in one file or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidpo_mm.data.files import READERS, read_file
from unidpo_mm.errors import DataError, Problem

from .dataset import Dataset, build_dataset
from .samples import Sample


@dataclass
class JsonRow:
    """One object of a file, and the problems in it."""

    file: Path
    where: str  # File and row
    record: Mapping[str, Any]  # The object
    several: bool = False  # The file is one of several, in which ids may repeat
    problems: list[Problem] = field(default_factory=list)  # Collected by `note`

    def text(self, name: str, *, optional: bool = False) -> str:
        """Return a string or number as text; any other value is a problem."""
        value = self.record.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            if value is None and optional:
                return ""
            problem = "missing" if value is None else f"got {type(value).__name__}"
            self.note(name, problem, "Use a string")
            return ""
        return str(value)

    def note(self, name: str, problem: str, remedy: str) -> None:
        """Record a problem with one field."""
        self.problems.append(Problem(f"{self.where}, field '{name}'", problem, remedy))


def read_json_files(path: Path, build: Callable[[JsonRow], Sample], *, pattern: str) -> Dataset:
    """Read the samples of a file, or of the files in a directory that match a pattern.

    `build` notes problems in the object; `pattern` is a glob for directories.
    """
    files = sorted(path.glob(pattern)) if path.is_dir() else [path]
    if not files:
        problem = f"the directory contains no file {pattern}"
        raise DataError(Problem(str(path), problem, "Pass the file itself"))
    problems: list[Problem] = []
    samples = []
    for row in read_records(files, problems):
        samples.append(build(row))
        problems += row.problems
    return build_dataset(path, samples, files=files, problems=problems)


def read_records(files: Sequence[Path], problems: list[Problem]) -> list[JsonRow]:
    """Return the objects of files; anything else is appended to `problems`."""
    rows = []
    for file in files:
        if not file.is_file():
            raise DataError(Problem(str(file), "the file does not exist", "Fix the path"))
        for place, number, record in _read(file):
            where = f"{place} row {number}"
            if isinstance(record, Problem):
                problems.append(record)
            elif not isinstance(record, Mapping):
                text = f"expected an object, got {type(record).__name__}"
                problems.append(Problem(where, text, "Write an object"))
            else:
                rows.append(JsonRow(file, where, record, several=len(files) > 1))
    return rows


def _read(file: Path) -> Any:
    """Read the records of a file; official .json files may hold one object per line."""
    if file.suffix == ".json":
        with file.open(encoding="utf-8-sig", errors="replace") as content:
            if not content.read(256).lstrip().startswith("["):
                return READERS[".jsonl"](file)
    return read_file(file)
