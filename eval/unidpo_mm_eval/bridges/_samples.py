"""Shared by bridges that read logged samples of lm-eval and lmms-eval: one object per line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem

from ..data.json_files import read_records
from ..data.samples import Prediction
from . import ImportedResponse, raise_if

RESPONSES = ("resps", "filtered_resps")
"""Fields with the response, the unmodified one first."""
IDS = ("id", "question_id", "index", "idx")
"""Fields of a logged document with its id."""


def read_samples(path: Path) -> Sequence[ImportedResponse]:
    """Read the responses of a file of samples.

    Ids are those of the logged documents, or else `doc_id`, which is a row number. If a document is
    logged once per filter, the first is used.
    """
    problems: list[Problem] = []
    responses: dict[str, ImportedResponse] = {}
    for row in read_records([path], problems):
        document = row.record.get("doc")
        document = document if isinstance(document, dict) else {}
        named = next((document[name] for name in IDS if document.get(name) is not None), None)
        sample_id = row.text("doc_id") if named is None else str(named)
        name = next((name for name in RESPONSES if name in row.record), RESPONSES[0])
        response = _first(row.record.get(name))
        if response is None:
            row.note(name, "there is no response", "Use a file of logged samples")
        problems += row.problems
        responses.setdefault(
            sample_id,
            ImportedResponse(
                prediction=Prediction(id=sample_id, response=response or "", where=row.where),
                by_row=named is None,
                question=str(document.get("question") or _first(row.record.get("input")) or ""),
                target=str(row.record.get("target") or ""),
            ),
        )
    raise_if(problems)
    return list(responses.values())


def _first(value: Any) -> str | None:
    """Return the first string of nested lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else None
