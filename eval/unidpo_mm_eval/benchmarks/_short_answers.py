"""Shared by benchmarks whose answers are a list of short texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..scorers.anls import anls
from ..scorers.clean import cleaned
from ..scorers.formats import SHORT
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules

__all__ = ["anls_benchmark", "read_short_answers"]


def read_short_answers(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table whose answer is a list, or one text."""
    return read_tsv(path, _sample, needs=("question", "answer"), pictures=pictures)


def _sample(row: TsvRow) -> Sample:
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=row.answers(),
        labels=row.labels("split"),
        cluster=row.picture,
        pictures=row.pictures,
        extras={"cell": row.get("answer")},  # as it stands, which one family compares with
    )


def anls_benchmark(name: str, title: str, file: str, rows: int) -> Benchmark:
    """Returns a benchmark that is scored by similarity; both kits have one rule for it."""
    rules = Rules(judge=_judge, metrics=_metrics, headline="anls")
    clean = Rules(judge=_judge_clean, metrics=_metrics, headline="anls")
    return Benchmark(
        name=name,
        title=title,
        read=read_short_answers,
        families={"vlmevalkit": rules, "lmms": rules, "clean": clean},
        expected={"rows": rows},
        files=(file,),
        layouts=(TABLE,),
        form=SHORT,
    )


def _judge(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    return Judged(anls(response, sample.answers), response.strip())


def _judge_clean(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    return _judge(sample, cleaned(response), protocol)


def _metrics(scored: Sequence[ScoredSample]) -> Metrics:
    return mean_metrics("anls", [(one.cluster, one.score, one.labels) for one in scored])
