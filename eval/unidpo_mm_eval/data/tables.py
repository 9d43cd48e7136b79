"""VLMEvalKit's tables: tab-separated, pictures in base64 or as a reference to another row.

Files of objects (.jsonl, .json, .parquet) with the same columns are read alike.

Every cell is text. A reader that guesses turns 007 into 7 and options called None, NA or null into
missing values; here only the empty cell is missing.
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

from .dataset import DataSet, data_set
from .json_files import records_of
from .samples import Picture, Sample

__all__ = ["LABELS", "TABLE", "TsvRow", "list_cell", "read_tsv"]

TABLE = "VLMEvalKit's .tsv, or its columns as .jsonl, .json or .parquet"
"""What `read_tsv` takes, for messages."""
REFERENCE = 64
"""Characters of the longest image cell that is the index of another row."""
LARGEST_CELL = 1 << 30
LABELS = ("category", "l2-category", "split")
"""Columns by whose values metrics are reported."""
MISSING = frozenset({"none", "na", "n/a", "null", "nan"})
"""Option texts that VLMEvalKit's reader takes for empty cells."""


@dataclass
class TsvRow:
    """One row of a table, and what is wrong with it.

    Attributes:
        where: File and row.
        cells: Column -> text; empty cells are left out.
        pictures: Of the image cell, references followed.
        problems: What was found wrong.
    """

    where: str
    cells: Mapping[str, str]
    pictures: tuple[Picture, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The row's index."""
        return self.cells.get("index", "")

    @property
    def picture(self) -> str:
        """What is equal for rows with the same pictures; the row's own id where it has none."""
        return " ".join(picture.key for picture in self.pictures) or f"row {self.id}"

    def get(self, column: str) -> str:
        """Returns a cell; an empty string where it is empty."""
        return self.cells.get(column, "")

    def need(self, column: str) -> str:
        """Returns a cell that must not be empty."""
        if column not in self.cells:
            self.note(column, "the cell is empty", "Fill it in")
        return self.get(column)

    def note(self, column: str, found: str, remedy: str) -> None:
        """Keeps a problem of one cell."""
        self.problems.append(Problem(f"{self.where}, column '{column}'", found, remedy))

    def options(self) -> dict[str, str]:
        """Returns letter -> text of the options that are not empty."""
        return {
            letter: self.cells[letter] for letter in string.ascii_uppercase if letter in self.cells
        }

    def labels(self, *columns: str) -> dict[str, str]:
        """Returns the values of label columns that are not empty."""
        return {name: self.cells[name] for name in columns or LABELS if name in self.cells}

    def letter(self) -> str:
        """Returns an answer that must be the letter of an option."""
        answer = self.need("answer")
        if answer and not (len(answer) == 1 and answer in string.ascii_uppercase):
            self.note("answer", f"found '{answer[:60]}'", "Give the letter of an option")
        return answer

    def yes_or_no(self) -> str:
        """Returns an answer that must be Yes or No."""
        answer = self.need("answer").strip().capitalize()
        if answer and answer not in ("Yes", "No"):
            self.note("answer", f"found '{answer[:60]}'", "Give Yes or No")
        return answer

    def answers(self) -> tuple[str, ...]:
        """Returns the answers of a cell that is a list, or one answer."""
        cell = self.need("answer")
        listed = list_cell(cell)
        if listed is not None and not listed:
            self.note("answer", "the list is empty", "Give at least one answer")
        return (cell,) if listed is None else tuple(listed)


def list_cell(cell: str) -> list[str] | None:
    """Returns the items of a cell that is a Python list literal; None for any other text.

    Words in brackets without quotes are no literal and stay one text. Nothing is evaluated.
    """
    if not cell.strip().startswith("["):
        return None
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return [str(item) for item in value] if isinstance(value, list) else None


def read_tsv(
    path: Path,
    build: Callable[[TsvRow], Sample],
    *,
    needs: Sequence[str],
    pictures: bool = False,
) -> DataSet:
    """Returns the samples of a table.

    Rows without picture are left out where the table has an image column, as in VLMEvalKit.

    Args:
        path: The table.
        build: Makes a sample of a row, and notes problems in it.
        needs: Columns that have to be there beside `index`.
        pictures: Keep the pictures; otherwise only what tells them apart.

    Raises:
        DataError: With every problem of every row.
    """
    problems: list[Problem] = []
    rows = list(_rows(path, ("index", *needs), problems))
    shown = _pictures(rows, problems, keep=pictures)
    has_pictures = any("image" in cells for _, cells in rows)
    samples, dropped, like_missing = [], [], 0
    for where, cells in rows:
        if has_pictures and "image" not in cells:
            dropped.append(cells.get("index", ""))
            continue
        row = TsvRow(where, cells, shown.get(where, ()))
        row.need("index")
        sample = build(row)
        problems += row.problems
        samples.append(sample)
        like_missing += sum(text.lower() in MISSING for text in sample.options.values())
    notes = []
    if dropped:
        notes.append(f"{len(dropped)} rows without picture are left out")
    if like_missing:
        notes.append(
            f"{like_missing} options read None, NA, N/A, null or nan: VLMEvalKit drops them, here "
            "they stay"
        )
    return data_set(
        path,
        samples,
        files=[path],
        problems=problems,
        dropped=dropped,
        notes=notes,
        references=sum(_is_reference(cells["image"]) for _, cells in rows if "image" in cells),
    )


def _rows(
    path: Path, needs: Sequence[str], problems: list[Problem]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields where each row is and its cells that are not empty."""
    try:
        if path.suffix.lower() == ".tsv":
            yield from _of_table(path, needs, problems)
        else:
            yield from _of_records(path, needs, problems)
    except UnicodeDecodeError as error:
        found = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        raise DataError(Problem(str(path), found, "Write the file as UTF-8")) from error
    except OSError as error:
        found = f"the file cannot be read ({error})"
        raise DataError(Problem(str(path), found, "Repair the path")) from error


def _of_table(
    path: Path, needs: Sequence[str], problems: list[Problem]
) -> Iterator[tuple[str, dict[str, str]]]:
    csv.field_size_limit(LARGEST_CELL)
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t", strict=True)
            header = next(reader, [])
            _check_header(path, header, needs)
            for number, cells in enumerate(reader, start=1):
                where = f"{path} row {number}"
                if not cells:  # an empty line
                    continue
                if len(cells) != len(header):
                    found = f"it has {len(cells)} cells and the header {len(header)}"
                    remedy = "Quote cells that hold tabs or line breaks"
                    problems.append(Problem(where, found, remedy))
                    continue
                yield where, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    except csv.Error as error:
        found = f"the quotes do not match ({error})"
        problems.append(Problem(f"{path} row {number + 1}", found, "Double quotes inside of cells"))


def _of_records(
    path: Path, needs: Sequence[str], problems: list[Problem]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of a file of objects with the columns of a table."""
    rows = records_of([path], problems)
    known = dict.fromkeys(name for row in rows for name in row.record)
    if rows:
        _check_header(path, list(known), needs)
    for row in rows:
        cells = {str(name): _cell(value) for name, value in row.record.items()}
        yield row.where, {name: cell for name, cell in cells.items() if cell}


def _cell(value: Any) -> str:
    """Returns a value as a table would have it: pictures in base64, lists as literals."""
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return "" if value is None else str(value)


def _check_header(path: Path, header: Sequence[str], needs: Sequence[str]) -> None:
    problems = []
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        found = f"the columns {', '.join(twice)} are there twice"
        problems.append(Problem(str(path), found, "Give each column its own name"))
    absent = [name for name in needs if name not in header]
    if absent:
        found = f"there is no column {', '.join(absent)} among {', '.join(header) or 'none'}"
        remedy = "Give a tab-separated table with a header"
        problems.append(Problem(str(path), found, remedy))
    if problems:
        raise DataError(problems)


def _pictures(
    rows: Sequence[tuple[str, Mapping[str, str]]], problems: list[Problem], *, keep: bool
) -> dict[str, tuple[Picture, ...]]:
    """Returns the pictures of each row; references are followed one step."""
    cells = {row["index"]: row["image"] for _, row in rows if "index" in row and "image" in row}
    made: dict[str, tuple[Picture, ...]] = {}
    found = {}
    for where, row in rows:
        cell = row.get("image", "")
        if cell and _is_reference(cell):
            target = cells.get(cell, "")
            if not target or _is_reference(target):
                why = "has no picture of its own" if target else "is not there"
                text = f"it refers to the picture of row '{cell}', which {why}"
                remedy = "Give the picture, or the index of a row that holds it"
                problems.append(Problem(f"{where}, column 'image'", text, remedy))
                continue
            cell = target
        if cell:
            found[where] = made.setdefault(_key(cell), _of_cell(cell, keep=keep))
    return found


def _is_reference(cell: str) -> bool:
    return len(cell) <= REFERENCE


def _of_cell(cell: str, *, keep: bool) -> tuple[Picture, ...]:
    listed = list_cell(cell)
    return tuple(
        Picture(_key(one), _content(one) if keep else None)
        for one in ([cell] if listed is None else listed)
    )


def _content(cell: str) -> bytes | str:
    """Returns the picture in base64 as bytes; text that is none stays, and opening it says so."""
    try:
        return base64.b64decode(cell, validate=True)
    except ValueError:
        return cell


def _key(cell: str) -> str:
    return hashlib.sha256(cell.encode()).hexdigest()[:16]
