"""Prediction files: one ``{"id": ..., "response": ...}`` a line, in any order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidpo_mm.data.files import read_file
from unidpo_mm.errors import DataError, Problem

from .dataset import file_hash
from .samples import Prediction

__all__ = ["OPENED", "Predictions", "read_predictions"]

HEADER = "manifest"
"""Key of the record that says how the others were made."""
OPENED = "prompt_opens_reasoning"
"""Key of a manifest whose prompts end with an opening reasoning tag."""


@dataclass(frozen=True)
class Predictions:
    """The responses of a file.

    Attributes:
        path: The file.
        sha256: Of its content.
        by_id: Id -> prediction.
        manifest: How they were made, where the file says so.
    """

    path: Path
    sha256: str
    by_id: Mapping[str, Prediction]
    manifest: Mapping[str, Any] = field(default_factory=dict)


def read_predictions(path: Path) -> Predictions:
    """Returns the predictions of a JSON, JSONL or Parquet file.

    Ids are taken as text. ``finish_reason`` and ``error`` are read where they are.

    Raises:
        DataError: With every row that is no prediction, and every id that stands twice.
    """
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "does not exist"
        remedy = 'Give a file with one {"id": ..., "response": ...} a line'
        raise DataError(Problem(str(path), f"the file of predictions {why}", remedy))
    found: dict[str, Prediction] = {}
    manifest: Mapping[str, Any] = {}
    problems: list[Problem] = []
    for place, number, record in read_file(path):
        where = f"{place} row {number}"
        if isinstance(record, Problem):
            problems.append(record)
        elif isinstance(record, Mapping) and isinstance(record.get(HEADER), Mapping):
            manifest = record[HEADER]
        else:
            _add(record, where, found, problems)
    if not found and not problems:
        remedy = 'Write one {"id": ..., "response": ...} a line'
        problems.append(Problem(str(path), "the file holds no prediction", remedy))
    if problems:
        raise DataError(problems)
    return Predictions(path, file_hash([path]), found, manifest)


def _add(record: Any, where: str, found: dict[str, Prediction], problems: list[Problem]) -> None:
    if not isinstance(record, Mapping):
        remedy = 'Write {"id": ..., "response": ...}'
        problems.append(Problem(where, f"the row is {type(record).__name__}", remedy))
        return
    own, response, error = record.get("id"), record.get("response"), record.get("error")
    before = len(problems)
    if isinstance(own, bool) or not isinstance(own, str | int) or own == "":
        text = f"found {_shown(own)}"
        problems.append(Problem(f"{where}, field 'id'", text, "Give the id of a sample"))
    if response is None and error:
        response = ""
    if not isinstance(response, str):
        remedy = "Give the response as a string, empty where the model said nothing"
        problems.append(Problem(f"{where}, field 'response'", f"found {_shown(response)}", remedy))
    elif (half := half_a_character(response)) is not None:
        text = f"it holds half a character at position {half}"
        problems.append(Problem(f"{where}, field 'response'", text, "Write the response again"))
    if len(problems) > before:
        return
    name = str(own)
    if name in found:
        text = f"the id '{name}' is taken by {found[name].where}"
        problems.append(Problem(f"{where}, field 'id'", text, "Keep one prediction for each id"))
        return
    reason = record.get("finish_reason")
    found[name] = Prediction(
        id=name,
        response=str(response),
        where=where,
        finish_reason=None if reason is None else str(reason),
        error=str(error) if error else None,
    )


def half_a_character(text: str) -> int | None:
    """Returns where a text holds half of a surrogate pair, as badly cut JSON does."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} ({str(value)[:60]!r})"
