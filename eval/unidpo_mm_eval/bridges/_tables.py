"""Tables that tools exchange: tab-separated, JSON, or xlsx with a library of its own."""

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem, UniDPOError

__all__ = ["TABLES", "read_table", "write_table"]

TABLES = (".xlsx", ".tsv", ".json")
LARGEST_CELL = 1 << 30
LONGEST_CELL = 32_767
"""Characters that a cell of xlsx holds."""


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows; the ending of the file says how."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1), encoding="utf-8")
    elif path.suffix == ".tsv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t", restval="")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".xlsx":
        book = _openpyxl().Workbook()
        book.active.append(columns)
        for number, row in enumerate(rows, start=2):
            for at, name in enumerate(columns, start=1):
                _put(book.active.cell(number, at), row.get(name), path)
        book.save(path)
    else:
        raise _unknown(path)


def read_table(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a table as text; empty cells are left out.

    Raises:
        DataError: If the file is no table.
    """
    try:
        rows = _rows(path)
    except (OSError, ValueError, KeyError, csv.Error, zipfile.BadZipFile) as error:
        found = f"the table cannot be read ({error})"
        raise DataError(Problem(str(path), found, "Write it again")) from error
    return [
        {str(name): str(value) for name, value in row.items() if value not in (None, "")}
        for row in rows
    ]


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
            raise ValueError("it is no list of objects")
        return content
    if path.suffix == ".tsv":
        csv.field_size_limit(LARGEST_CELL)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", strict=True))
        uneven = [n for n, row in enumerate(rows, start=1) if None in row or None in row.values()]
        if uneven:
            raise ValueError(f"row {uneven[0]} has more or fewer cells than the header")
        return rows
    if path.suffix == ".xlsx":
        sheet = _openpyxl().load_workbook(path, read_only=True).active
        header, *rows = sheet.iter_rows(values_only=True)
        return [dict(zip(header, row, strict=True)) for row in rows]
    raise _unknown(path)


def _put(cell: Any, value: Any, path: Path) -> None:
    """Writes a value into a cell of xlsx: whole numbers as such, text never as a formula."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    text = "" if value is None else str(value)
    if len(text) > LONGEST_CELL:
        found = f"a text has {len(text):,} characters, and a cell holds {LONGEST_CELL:,}"
        raise DataError(Problem(str(path), found, "Write a .tsv or .json"))
    if text.isdecimal() and str(int(text)) == text:
        cell.value = int(text)
    elif text:
        cell.value = ILLEGAL_CHARACTERS_RE.sub("", text)  # which cannot stand there
        cell.data_type = "s"


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise UniDPOError(
            "tables of .xlsx need openpyxl; pip install 'unidpo-mm[xlsx]', or name a .tsv or .json"
        ) from error
    return openpyxl


def _unknown(path: Path) -> DataError:
    found = f"'{path.suffix}' is no table"
    return DataError(Problem(str(path), found, f"Name a file of {', '.join(TABLES)}"))
