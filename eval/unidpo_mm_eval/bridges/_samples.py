"""Shared by bridges that read logged samples of lm-eval and lmms-eval: one object a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.json_files import records_of
from ..data.samples import Prediction
from . import Imported

__all__ = ["read_samples"]

RESPONSES = ("resps", "filtered_resps")
"""Where a response stands; as the model gave it first."""
IDS = ("id", "question_id", "index", "idx")
"""Where a logged document has its own id."""


def read_samples(path: Path) -> Sequence[Imported]:
    """Returns the responses of a file of samples.

    Ids are those of the logged documents, else `doc_id`, which is the number of a row. A document
    that is logged once for each filter is taken once.
    """
    problems: list[Problem] = []
    found: dict[str, Imported] = {}
    for row in records_of([path], problems):
        document = row.record.get("doc")
        document = document if isinstance(document, dict) else {}
        named = next((document[name] for name in IDS if document.get(name) is not None), None)
        own = row.text("doc_id") if named is None else str(named)
        name = next((name for name in RESPONSES if name in row.record), RESPONSES[0])
        response = _first(row.record.get(name))
        if response is None:
            row.note(name, "there is no response", "Give a file of logged samples")
        problems += row.problems
        one = Prediction(id=own, response=response or "", where=row.where)
        found.setdefault(
            own,
            Imported(
                prediction=one,
                by_row=named is None,
                question=str(document.get("question") or _first(row.record.get("input")) or ""),
                target=str(row.record.get("target") or ""),
            ),
        )
    if problems:
        raise DataError(problems)
    return list(found.values())


def _first(value: Any) -> str | None:
    """Returns the first text of nested lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else None
