"""TextVQA validation: text in photographs, ten answers a question."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..benchmark import Benchmark, Rules
from ..extract.vqa import VqaRule, normalised, vqa_accuracy
from ..metrics import Metrics, mean_metrics
from ..reading.data_set import DataSet
from ..samples import Judged, Sample, ScoredSample
from ._short_answers import read_short_answers

__all__ = ["BENCHMARK"]

HEADLINE = "vqa_accuracy"


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    return read_short_answers(path, pictures)


def judge(question: Sample, response: str, protocol: Mapping[str, Any], *, rule: VqaRule) -> Judged:
    """Returns the share of people that a response agrees with, one left out at a time."""
    score = vqa_accuracy(response, question.answers, rule=rule)
    return Judged(score, normalised(response, rule=rule))


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the mean over all questions."""
    return mean_metrics(HEADLINE, [(one.cluster, one.score, {}) for one in scored])


BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA validation",
    read=read,
    families={
        family: Rules(judge=partial(judge, rule=family), metrics=metrics, headline=HEADLINE)
        for family in ("vlmevalkit", "lmms")
    },
    expected={"rows": 5000},
    files=("TextVQA_VAL.tsv",),
    layouts=("VLMEvalKit's .tsv",),
)
