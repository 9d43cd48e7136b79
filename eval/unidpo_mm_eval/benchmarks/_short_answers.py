"""Shared by benchmarks whose answers are lists of short texts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.samples import Grade, Sample
from ..data.tables import TableRow, table_reader
from ..scorers.clean import strip_wrapping
from ..scorers.formats import SHORT
from ..scorers.short_answers import anls
from ..stats.metrics import mean_score
from . import Benchmark, GradeFunction, Scorer


def _sample(row: TableRow) -> Sample:
    cell = row.get("answer")  # unparsed, as lmms-eval compares it
    return row.sample(answers=row.answers(), labels=row.labels("split"), extras={"cell": cell})


read_short_answers = table_reader(_sample, "question", "answer")


def short_benchmark(
    name: str,
    title: str,
    metric: str,
    file: str,
    rows: int,
    *,
    by_label: bool = True,
    **grades: GradeFunction,
) -> Benchmark:
    """Build a benchmark of short answers whose only metric is a mean score.

    `grades` maps names of scorers to their grade functions.
    """
    metrics = partial(mean_score, metric, by_label=by_label)
    return Benchmark(
        name=name,
        title=title,
        read=read_short_answers,
        scorers={n: Scorer(grade=g, metrics=metrics, headline=metric) for n, g in grades.items()},
        expected={"rows": rows},
        files=(file,),
        response_format=SHORT,
    )


def anls_benchmark(name: str, title: str, file: str, rows: int) -> Benchmark:
    """Build a benchmark scored by similarity; both reference toolkits use the same rule."""
    return short_benchmark(
        name, title, "anls", file, rows, vlmevalkit=_grade, lmms=_grade, clean=_grade_clean
    )


def _grade(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    return Grade(anls(response, sample.answers), response.strip())


def _grade_clean(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    return _grade(sample, strip_wrapping(response), options)
