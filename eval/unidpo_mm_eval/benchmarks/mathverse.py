"""MathVerse mini, the part without a language model: the response has to be the answer itself."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..scorers.formats import SHORT
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules

__all__ = ["BENCHMARK"]


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row."""
    labels = row.labels("problem_version")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=(row.need("answer"),),
        labels=labels | _metadata(row),
        cluster=row.get("problem_index") or row.picture,  # one problem comes in several versions
        pictures=row.pictures,
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    needs = ("question", "answer", "problem_version")
    return read_tsv(path, sample, needs=needs, pictures=pictures)


def judge(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the stripped response is the answer."""
    said = response.strip()
    return Judged(float(said == question.answers[0].strip()), said or None)


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the accuracy, whole, by version of the problem, subject and subfield."""
    return mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in scored])


def _metadata(row: TsvRow) -> dict[str, str]:
    """Returns subject and subfield of a cell that is a Python or JSON object."""
    cell = row.get("metadata")
    if not cell:
        return {}
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, dict):
        row.note("metadata", f"found '{cell[:60]}'", "Write {'subject': ..., 'subfield': ...}")
        return {}
    return {name: str(found[name]) for name in ("subject", "subfield") if name in found}


BENCHMARK = Benchmark(
    name="mathverse",
    title="MathVerse mini, equal texts",
    read=read,
    families={"vlmevalkit": Rules(judge=judge, metrics=metrics, headline="accuracy")},
    expected={"rows": 3940},
    files=("MathVerse_MINI.tsv",),
    layouts=(TABLE,),
    form=SHORT,
)
