"""MathVerse mini without a language model: the response has to be the answer itself."""

import ast
from collections.abc import Mapping
from typing import Any

from ..data.samples import Grade, Sample
from ..data.tables import TableRow, table_reader
from ..scorers.formats import SHORT
from . import Benchmark, Scorer


def sample(row: TableRow) -> Sample:
    """Build the question of a row."""
    return row.sample(
        answers=(row.need("answer"),),
        labels=row.labels("problem_version") | _metadata(row),
        cluster=row.get("problem_index") or row.image_key,  # a problem has several versions
    )


def grade(question: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the stripped response is the answer."""
    answer = response.strip()
    return Grade(float(answer == question.answers[0].strip()), answer or None)


def _metadata(row: TableRow) -> dict[str, str]:
    """Return subject and subfield from a cell that is a Python or JSON object."""
    cell = row.get("metadata")
    if not cell:
        return {}
    try:
        metadata = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        row.note("metadata", f"got '{cell[:60]}'", "Use {'subject': ..., 'subfield': ...}")
        return {}
    return {name: str(metadata[name]) for name in ("subject", "subfield") if name in metadata}


BENCHMARK = Benchmark(
    name="mathverse",
    title="MathVerse mini, equal texts",
    read=table_reader(sample, "question", "answer", "problem_version"),
    scorers={"vlmevalkit": Scorer(grade=grade)},
    expected={"rows": 3940},
    files=("MathVerse_MINI.tsv",),
    response_format=SHORT,
)
