"""VLMEvalKit's tables: tab-separated, with images in base64 or as references to other rows.

Files of objects (.jsonl, .json, .parquet) with the same columns are read the same way.

Every cell is text. A reader that infers types turns 007 into 7, and options called None, NA or null
into missing values; here only an empty cell is missing.
"""

import ast
import base64
import csv
import hashlib
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from .dataset import Dataset, build_dataset
from .json_files import read_records
from .samples import Image, Sample

TABLE = "VLMEvalKit's .tsv, or its columns as .jsonl, .json or .parquet"
"""The files that `read_table` accepts, for error messages."""
MAX_REFERENCE = 64
"""Maximum number of characters of an image cell that refers to another row."""
MAX_CELL = 1 << 30
LABELS = ("category", "l2-category", "split")
"""Columns for whose values metrics are reported separately."""
MISSING = frozenset({"none", "na", "n/a", "null", "nan"})
"""Option texts that VLMEvalKit's reader treats as empty cells."""
Rows = Iterator[tuple[str, dict[str, str]]]
"""File and row, and the non-empty cells by column."""


@dataclass
class TableRow:
    """One row of a table, and the problems in it."""

    where: str  # File and row
    cells: Mapping[str, str]  # Column -> text of the non-empty cells
    images: tuple[Image, ...] = ()  # From the image cell, references resolved
    problems: list[Problem] = field(default_factory=list)  # Collected by `note`

    @property
    def id(self) -> str:
        """The row's index."""
        return self.get("index")

    @property
    def image_key(self) -> str:
        """Equal for rows with the same images; unique for a row without images."""
        return " ".join(image.key for image in self.images) or f"row {self.id}"

    def get(self, column: str) -> str:
        """Return a cell, possibly empty."""
        return self.cells.get(column, "")

    def need(self, column: str) -> str:
        """Return a cell that must not be empty."""
        if column not in self.cells:
            self.note(column, "the cell is empty", "Fill it in")
        return self.get(column)

    def note(self, column: str, problem: str, remedy: str) -> None:
        """Record a problem with one cell."""
        self.problems.append(Problem(f"{self.where}, column '{column}'", problem, remedy))

    def choose(self, column: str, allowed: Sequence[str], *, value: str | None = None) -> str:
        """Return a required cell that must have one of some values."""
        value = self.need(column) if value is None else value
        if value and value not in allowed:
            self.note(column, f"got '{value[:60]}'", f"Use one of {', '.join(allowed)}")
        return value

    def options(self) -> dict[str, str]:
        """Return letter -> text of the non-empty options."""
        return {letter: self.cells[letter] for letter in string.ascii_uppercase if self.get(letter)}

    def labels(self, *columns: str) -> dict[str, str]:
        """Return the non-empty values of label columns."""
        return {name: self.cells[name] for name in columns or LABELS if name in self.cells}

    def letter(self) -> str:
        """Return an answer that must be the letter of an option."""
        answer = self.need("answer")
        if answer and not (len(answer) == 1 and answer in string.ascii_uppercase):
            self.note("answer", f"got '{answer[:60]}'", "Use the letter of an option")
        return answer

    def yes_or_no(self) -> str:
        """Return an answer that must be Yes or No."""
        answer = self.need("answer").strip().capitalize()
        return self.choose("answer", ("Yes", "No"), value=answer)

    def answers(self) -> tuple[str, ...]:
        """Return the answers of a cell that is a list, or a single answer."""
        cell = self.need("answer")
        items = list_cell(cell)
        if items is not None and not items:
            self.note("answer", "the list is empty", "Use at least one answer")
        return (cell,) if items is None else tuple(items)

    def sample(self, **fields: Any) -> Sample:
        """Build a sample with the row's id, question and images; rows with equal images cluster."""
        usual = {"question": self.get("question"), "cluster": self.image_key, "images": self.images}
        return Sample(id=self.id, where=self.where, **usual | fields)


def list_cell(cell: str) -> list[str] | None:
    """Return the items of a cell that is a Python list literal; `None` for any other text.

    Words in brackets without quotes are not a literal. Nothing is evaluated.
    """
    if not cell.strip().startswith("["):
        return None
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return [str(item) for item in value] if isinstance(value, list) else None


def table_reader(
    build: Callable[[TableRow], Sample], *columns: str
) -> Callable[[Path, bool], Dataset]:
    """Return a function (path, with_images) that reads a table with some required columns."""
    return lambda path, with_images: read_table(path, build, columns, with_images=with_images)


def read_table(
    path: Path,
    build: Callable[[TableRow], Sample],
    columns: Sequence[str],
    *,
    with_images: bool = False,
) -> Dataset:
    """Read the samples of a table.

    If the table has an image column, rows without an image are skipped, as in VLMEvalKit.

    `build` notes problems in the row; without `with_images` samples have keys of images only.
    """
    problems: list[Problem] = []
    rows = list(_rows(path, ("index", *columns), problems))
    images = _images(rows, problems, keep=with_images)
    has_images = any("image" in cells for _, cells in rows)
    samples, dropped, like_missing = [], [], 0
    for where, cells in rows:
        if has_images and "image" not in cells:
            dropped.append(cells.get("index", ""))
            continue
        row = TableRow(where, cells, images.get(where, ()))
        row.need("index")
        sample = build(row)
        problems += row.problems
        samples.append(sample)
        like_missing += sum(text.lower() in MISSING for text in sample.options.values())
    notes = []
    if dropped:
        notes.append(f"skipped {len(dropped)} rows without an image")
    if like_missing:
        notes.append(
            f"{like_missing} options are called None, NA, N/A, null or nan: VLMEvalKit drops them, "
            "here they stay"
        )
    return build_dataset(
        path,
        samples,
        files=[path],
        problems=problems,
        dropped=dropped,
        notes=notes,
        references=sum(_is_reference(cells["image"]) for _, cells in rows if "image" in cells),
    )


def _rows(path: Path, columns: Sequence[str], problems: list[Problem]) -> Rows:
    is_table = path.suffix.lower() == ".tsv"
    try:
        yield from (_table_rows if is_table else _record_rows)(path, columns, problems)
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, error)) from error
    except OSError as error:
        raise DataError(
            Problem(str(path), f"cannot read the file ({error})", "Fix the path")
        ) from error


def not_utf8(path: Path, error: UnicodeDecodeError) -> Problem:
    """Return the problem of a file that is not valid UTF-8."""
    text = f"the file is not valid UTF-8 ({error.reason} at byte {error.start})"
    return Problem(str(path), text, "Save the file as UTF-8")


def _table_rows(path: Path, columns: Sequence[str], problems: list[Problem]) -> Rows:
    csv.field_size_limit(MAX_CELL)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t", strict=True)
            header = next(reader, [])
            _check_header(path, header, columns)
            for number, cells in enumerate(reader, start=1):
                where = f"{path} row {number}"
                if not cells:  # an empty line
                    continue
                if len(cells) != len(header):
                    text = f"the row has {len(cells)} cells, the header {len(header)}"
                    remedy = "Quote cells that contain tabs or line breaks"
                    problems.append(Problem(where, text, remedy))
                    continue
                yield where, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except csv.Error as error:
        text = f"unbalanced quotes ({error})"
        problems.append(Problem(f"{path} row {number + 1}", text, "Double the quotes in cells"))


def _record_rows(path: Path, columns: Sequence[str], problems: list[Problem]) -> Rows:
    rows = read_records([path], problems)
    if rows:
        names = dict.fromkeys(str(name) for row in rows for name in row.record)
        _check_header(path, list(names), columns)
    for row in rows:
        cells = {str(name): _cell(value) for name, value in row.record.items()}
        yield row.where, {name: cell for name, cell in cells.items() if cell}


def _cell(value: Any) -> str:
    """Return a value as a table has it: images in base64, lists as literals."""
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return "" if value is None else str(value)


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    problems = []
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        text = f"duplicate columns {', '.join(duplicates)}"
        problems.append(Problem(str(path), text, "Use unique column names"))
    absent = [name for name in columns if name not in header]
    if absent:
        text = f"missing column {', '.join(absent)}; the columns are {', '.join(header) or 'none'}"
        problems.append(Problem(str(path), text, "Use a tab-separated table with a header"))
    if problems:
        raise DataError(problems)


def _images(
    rows: Sequence[tuple[str, Mapping[str, str]]], problems: list[Problem], *, keep: bool
) -> dict[str, tuple[Image, ...]]:
    """Return the images of each row; references are followed one step."""
    cells = {row["index"]: row["image"] for _, row in rows if "index" in row and "image" in row}
    by_key: dict[str, tuple[Image, ...]] = {}
    images = {}
    for where, row in rows:
        cell = row.get("image", "")
        if cell and _is_reference(cell):
            target = cells.get(cell, "")
            if not target or _is_reference(target):
                reason = "has no image of its own" if target else "does not exist"
                text = f"refers to the image of row '{cell}', which {reason}"
                remedy = "Use the image itself, or the index of a row that contains it"
                problems.append(Problem(f"{where}, column 'image'", text, remedy))
                continue
            cell = target
        if cell:
            images[where] = by_key.setdefault(_key(cell), _cell_images(cell, keep=keep))
    return images


def _is_reference(cell: str) -> bool:
    return len(cell) <= MAX_REFERENCE


def _cell_images(cell: str, *, keep: bool) -> tuple[Image, ...]:
    items = list_cell(cell)
    return tuple(
        Image(_key(item), _content(item) if keep else None)
        for item in ([cell] if items is None else items)
    )


def _content(cell: str) -> bytes | str:
    """Decode base64; other text stays, and opening the image reports it."""
    try:
        return base64.b64decode(cell, validate=True)
    except ValueError:
        return cell


def _key(cell: str) -> str:
    return hashlib.sha256(cell.encode()).hexdigest()[:16]
