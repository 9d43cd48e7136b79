"""Files of an exchange: rows of the data, tables of other tools, and imported predictions."""

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem, UniDPOError

from ..data.json_files import read_records
from ..data.predictions import MANIFEST
from ..data.samples import Prediction
from ..data.tables import MAX_CELL
from . import ImportedResponse

TABLES = (".xlsx", ".tsv", ".json")
MAX_XLSX_CELL = 32_767
"""Maximum number of characters in a cell of .xlsx."""
IDS = ("index", "id", "question_id", "uid", "idx")
ANSWERS = ("answer", "label", "target")
Records = list[Mapping[str, Any]]


def read_data(path: Path) -> tuple[list[str], Records]:
    """Return the ids and rows of a table or JSON file; a row without id gets its number."""
    problems: list[Problem] = []
    if path.is_dir():
        text = "expected a file, got a directory"
        raise DataError(Problem(str(path), text, "Use one of its files"))
    if path.suffix == ".tsv":
        records: Records = list(read_table(path))
    else:
        records = [row.record for row in read_records([path], problems)]
    ids = [
        next((str(record[name]) for name in IDS if record.get(name) is not None), str(number))
        for number, record in enumerate(records)
    ]
    first: dict[str, int] = {}
    for number, row_id in enumerate(ids, start=1):
        if first.setdefault(row_id, number) != number:
            text = f"duplicate id '{row_id}', already used by row {first[row_id]}"
            problems.append(Problem(f"{path} row {number}", text, "Use a unique id per row"))
    if problems:
        raise DataError(problems)
    return ids, records


def write_predictions(
    predictions: Sequence[Prediction], output: Path, *, backend: str, model: str, protocol: str
) -> None:
    """Write predictions of another tool, with a manifest that names tool, model and protocol."""
    manifest = {MANIFEST: {"model": model, "backend": backend, "protocol": protocol}}
    lines = [manifest, *({"id": p.id, "response": p.response} for p in predictions)]
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    output.write_text(text, encoding="utf-8")


def match_ids(
    responses: Sequence[ImportedResponse], ids: Sequence[str], records: Records
) -> list[Prediction]:
    """Give imported responses the ids of the data.

    A row number is accepted only if the tool logged the row's question or answer. Otherwise a file
    in another order would be scored against the wrong rows.
    """
    id_set, problems, matched = set(ids), [], []
    for response in responses:
        prediction, text = response.prediction, ""
        if not response.by_row:
            if prediction.id not in id_set:
                text = f"the data contain no row '{prediction.id}'"
            matched.append(prediction)
        else:
            row = int(prediction.id) if prediction.id.isdecimal() else len(ids)
            if row >= len(ids):
                text = f"row number {prediction.id}, but the data contain {len(ids)} rows"
            elif not _is_question(records[row], response):
                text = f"the question differs from that of row number {row} of the data"
            else:
                matched.append(replace(prediction, id=ids[row]))
        if text:
            remedy = "Use the data of these predictions, in their order"
            problems.append(Problem(prediction.where, text, remedy))
    if problems:
        raise DataError(problems)
    return matched


def _is_question(record: Mapping[str, Any], response: ImportedResponse) -> bool:
    """Return whether the log contains a row's question, or its answer if no question was logged."""
    question = _plain(record.get("question") or record.get("text") or record.get("problem"))
    if question and response.question:
        return question in _plain(response.question)
    answer = next((_plain(record[name]) for name in ANSWERS if record.get(name)), "")
    return bool(answer) and answer == _plain(response.target)


def _plain(value: Any) -> str:
    return " ".join(str(value or "").split()).lower()


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows in the format of the file's suffix."""
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
            for column, name in enumerate(columns, start=1):
                _fill(book.active.cell(number, column), row.get(name), path)
        book.save(path)
    else:
        raise _not_a_table(path)


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the non-empty cells of each row of a table as text."""
    try:
        rows = _rows(path)
    except (OSError, ValueError, KeyError, csv.Error, zipfile.BadZipFile) as error:
        raise DataError(
            Problem(str(path), f"cannot read the table ({error})", "Write it again")
        ) from error
    return [
        {str(name): str(value) for name, value in row.items() if value not in (None, "")}
        for row in rows
    ]


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError("expected a list of objects")
        return content
    if path.suffix == ".tsv":
        csv.field_size_limit(MAX_CELL)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", strict=True))
        uneven = [n for n, row in enumerate(rows, start=1) if None in row or None in row.values()]
        if uneven:
            raise ValueError(f"row {uneven[0]} has more or fewer cells than the header")
        return rows
    if path.suffix == ".xlsx":
        sheet = _openpyxl().load_workbook(path, read_only=True).active
        header, *values = sheet.iter_rows(values_only=True)
        return [dict(zip(header, row, strict=True)) for row in values]
    raise _not_a_table(path)


def _fill(cell: Any, value: Any, path: Path) -> None:
    """Fill a cell of .xlsx: integers as numbers, and text never as a formula."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    text = "" if value is None else str(value)
    if len(text) > MAX_XLSX_CELL:
        message = f"a text has {len(text):,} characters; a cell holds at most {MAX_XLSX_CELL:,}"
        raise DataError(Problem(str(path), message, "Use .tsv or .json"))
    if text.isdecimal() and str(int(text)) == text:
        cell.value = int(text)
    elif text:
        cell.value = ILLEGAL_CHARACTERS_RE.sub("", text)
        cell.data_type = "s"


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        text = ".xlsx tables need openpyxl"
        remedy = "Run pip install 'unidpo-mm[xlsx]', or use .tsv or .json"
        raise UniDPOError(f"{text}. {remedy}") from error
    return openpyxl


def _not_a_table(path: Path) -> DataError:
    text = f"'{path.suffix}' is not a table format"
    return DataError(Problem(str(path), text, f"Use {', '.join(TABLES)}"))
