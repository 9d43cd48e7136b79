"""Tables that tools exchange: tab-separated, JSON, or xlsx with a library of its own."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem, UniDPOError

__all__ = ["TABLES", "read_table", "write_table"]

TABLES = (".xlsx", ".tsv", ".json")
LARGEST_CELL = 1 << 30


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
        for row in rows:
            book.active.append([_cell(row.get(name)) for name in columns])
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
    except (OSError, ValueError, KeyError, csv.Error) as error:
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
            return list(csv.DictReader(file, delimiter="\t", strict=True))
    if path.suffix == ".xlsx":
        sheet = _openpyxl().load_workbook(path, read_only=True).active
        header, *rows = sheet.iter_rows(values_only=True)
        return [dict(zip(header, row, strict=True)) for row in rows]
    raise _unknown(path)


def _cell(value: Any) -> Any:
    """Returns a value for a cell of xlsx, in which some control characters cannot stand."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return ILLEGAL_CHARACTERS_RE.sub("", value) if isinstance(value, str) else value


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
