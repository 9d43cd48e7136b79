"""The rows of data as they stand in a file, and files of predictions of ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.json_files import records_of
from ..data.samples import Prediction
from ._tables import read_table

__all__ = ["read_data", "write_predictions"]

IDS = ("index", "id", "question_id", "uid", "idx")


def read_data(path: Path) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Returns ids and rows of a table or of a file of JSON; rows without id get their number.

    Raises:
        DataError: If a row is none, or an id stands twice.
    """
    problems: list[Problem] = []
    if path.is_dir():
        found = "it is a folder, and rows are exchanged file by file"
        raise DataError(Problem(str(path), found, "Name one of its files"))
    if path.suffix == ".tsv":
        records: list[Mapping[str, Any]] = list(read_table(path))
    else:
        records = [row.record for row in records_of([path], problems)]
    ids = [
        next((str(record[name]) for name in IDS if record.get(name) is not None), str(number))
        for number, record in enumerate(records)
    ]
    seen: dict[str, int] = {}
    for number, own in enumerate(ids, start=1):
        if own in seen:
            found = f"the id '{own}' is taken by row {seen[own]}"
            problems.append(Problem(f"{path} row {number}", found, "Give each row its own id"))
        seen.setdefault(own, number)
    if problems:
        raise DataError(problems)
    return ids, records


def write_predictions(
    found: Sequence[Prediction], out: Path, *, backend: str, model: str, protocol: str
) -> None:
    """Writes predictions of another tool, with a first line that says whose they are.

    Args:
        found: The predictions.
        out: The file.
        backend: The tool.
        model: What the model is called.
        protocol: By which prompts and settings they were made.
    """
    manifest = {"manifest": {"model": model, "backend": backend, "protocol": protocol}}
    lines = [manifest, *({"id": one.id, "response": one.response} for one in found)]
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    out.write_text(text, encoding="utf-8")
