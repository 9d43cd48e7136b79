"""MMBench DEV, English and Chinese: a question counts where all its circular copies are right."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from ..benchmark import Benchmark, Rules
from ..metrics import Metrics, mean_metrics
from ..reading.data_set import DataSet
from ..reading.tsv import TsvRow, read_tsv
from ..samples import Sample, ScoredSample
from ._options import judge_option, option_sample

__all__ = ["BENCHMARK"]

COPIES = 1_000_000
"""A copy's index is that of its question plus a multiple of this."""


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row, of one unit and one cluster with its copies."""
    made = option_sample(row)
    if not row.id.isdecimal():
        row.note("index", f"found '{row.id[:60]}'", "Give a whole number")
        return made
    question = str(int(row.id) % COPIES)
    return replace(made, unit=question, cluster=question)


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table and their copies.

    Raises:
        DataError: Also for copies whose question is not there.
    """
    found = read_tsv(path, sample, needs=("question", "A", "answer"), pictures=pictures)
    questions = {one.unit for one in found.samples if _is_question(one.id)}
    problems = [
        Problem(one.where, f"there is no row {one.unit}, of which it is a copy", "Add that row")
        for one in found.samples
        if one.unit not in questions
    ]
    if problems:
        raise DataError(problems)
    return found


def circular(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Returns question -> 1 where it and all its copies are right."""
    scores: Mapping[str, list[float]] = defaultdict(list)
    for one in scored:
        scores[one.unit].append(one.score)
    return {unit: min(found) for unit, found in scores.items()}


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the circular accuracy over questions and by label, and both plain accuracies."""
    right = circular(scored)
    questions = [one for one in scored if _is_question(one.id)]
    rows = [(one.cluster, right[one.unit], one.labels) for one in questions]
    found = mean_metrics("accuracy", rows)
    for name, members in (("all", scored), ("base", questions)):
        rows = [(one.cluster, one.score, {}) for one in members]
        mean_metrics(f"vanilla_accuracy_{name}", rows, metrics=found)
    return found


def _is_question(own: str) -> bool:
    return int(own) < COPIES


BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench DEV",
    read=read,
    families={
        "vlmevalkit": Rules(
            judge=judge_option, metrics=metrics, headline="accuracy", unit_scores=circular
        )
    },
    expected={"rows": 4329, "questions": 1164},
    files=("MMBench_DEV_EN.tsv", "MMBench_DEV_CN.tsv", "MMBench*.tsv"),
    layouts=("VLMEvalKit's .tsv",),
)
