"""Prediction files: one ``{"id": ..., "response": ...}`` per line, in any order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidpo_mm.data.files import read_file
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.inference.store import MANIFEST
from unidpo_mm.inference.template_variables import OPTION, TRAINED_WITH, VARIABLES

from .dataset import file_hash
from .samples import Prediction

OPENED = "prompt_opens_reasoning"
"""Manifest key: the prompts end with an opening reasoning tag."""
EXAMPLE = '{"id": ..., "response": ...}'


@dataclass(frozen=True)
class Predictions:
    """The predictions of a file."""

    path: Path
    sha256: str
    by_id: Mapping[str, Prediction]
    manifest: Mapping[str, Any] = field(default_factory=dict)


def read_predictions(path: Path) -> Predictions:
    """Read the predictions of a JSON, JSONL or Parquet file; ids become text."""
    if not path.is_file():
        problem = "is a directory" if path.is_dir() else "does not exist"
        remedy = f"Use a file with one {EXAMPLE} per line"
        raise DataError(Problem(str(path), f"the prediction file {problem}", remedy))
    predictions: dict[str, Prediction] = {}
    manifest: Mapping[str, Any] = {}
    problems: list[Problem] = []
    for place, number, record in read_file(path):
        where = f"{place} row {number}"
        if isinstance(record, Problem):
            problems.append(record)
        elif isinstance(record, Mapping) and isinstance(record.get(MANIFEST), Mapping):
            manifest = record[MANIFEST]
        else:
            _add(record, where, predictions, problems)
    if not predictions and not problems:
        text = "the file contains no predictions"
        problems.append(Problem(str(path), text, f"Write one {EXAMPLE} per line"))
    if problems:
        raise DataError(problems)
    return Predictions(path, file_hash([path]), predictions, manifest)


def variables_warning(manifest: Mapping[str, Any]) -> list[str]:
    """Return a warning if a checkpoint was trained with other variables than in evaluation."""
    if TRAINED_WITH not in manifest:
        return []
    used, trained = manifest.get(VARIABLES) or {}, json.dumps(manifest[TRAINED_WITH])
    return [
        f"the checkpoint was trained with {VARIABLES} {trained} and is evaluated with "
        f"{json.dumps(used)}: use {OPTION} '{trained}' for the prompts of its training"
    ]


def _add(
    record: Any, where: str, predictions: dict[str, Prediction], problems: list[Problem]
) -> None:
    if not isinstance(record, Mapping):
        text = f"expected an object, got {type(record).__name__}"
        problems.append(Problem(where, text, f"Write {EXAMPLE}"))
        return
    sample_id, response, error = (record.get(name) for name in ("id", "response", "error"))
    before = len(problems)
    if isinstance(sample_id, bool) or not isinstance(sample_id, str | int) or sample_id == "":
        text = _got(sample_id)
        problems.append(Problem(f"{where}, field 'id'", text, "Use the id of a sample"))
    if response is None and error:
        response = ""
    field_name = f"{where}, field 'response'"
    if not isinstance(response, str):
        remedy = "Use a string, empty if the model generated nothing"
        problems.append(Problem(field_name, _got(response), remedy))
    elif (position := _unpaired_surrogate(response)) is not None:
        text = f"the text contains an unpaired surrogate at position {position}"
        problems.append(Problem(field_name, text, "Write the response again"))
    if str(sample_id) in predictions:
        text = f"duplicate id '{sample_id}', already used by {predictions[str(sample_id)].where}"
        problems.append(Problem(f"{where}, field 'id'", text, "Keep one prediction per id"))
    if len(problems) > before:
        return
    reason = record.get("finish_reason")
    predictions[str(sample_id)] = Prediction(
        id=str(sample_id),
        response=str(response),
        where=where,
        finish_reason=None if reason is None else str(reason),
        error=str(error) if error else None,
    )


def _unpaired_surrogate(text: str) -> int | None:
    """Return the position of an unpaired surrogate, which incorrectly split JSON contains."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _got(value: Any) -> str:
    return "missing" if value is None else f"got {type(value).__name__} ({str(value)[:60]!r})"
