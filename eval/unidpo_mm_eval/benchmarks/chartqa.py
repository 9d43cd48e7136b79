"""ChartQA test: questions on charts, numbers within five percent."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE
from ..scorers.clean import clean_match, cleaned
from ..scorers.formats import SHORT
from ..scorers.relaxed import relaxed_match
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules
from ._short_answers import read_short_answers

__all__ = ["BENCHMARK"]

HEADLINE = "relaxed_accuracy"


def judge(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the stripped response matches one of the answers."""
    return Judged(float(relaxed_match(response, question.answers)), response.strip())


def judge_lmms(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the response as it stands matches the cell as it stands."""
    right = relaxed_match(response, (question.extras["cell"],), strip=False)
    return Judged(float(right), response)


def judge_clean(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the answer is right without what it is wrapped in, units and separators."""
    return Judged(float(clean_match(response, question.answers)), cleaned(response))


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the mean over all questions, which is not that of both halves, and each half's."""
    return mean_metrics(HEADLINE, [(one.cluster, one.score, one.labels) for one in scored])


BENCHMARK = Benchmark(
    name="chartqa",
    title="ChartQA test",
    read=read_short_answers,
    families={
        "vlmevalkit": Rules(judge=judge, metrics=metrics, headline=HEADLINE),
        "lmms": Rules(judge=judge_lmms, metrics=metrics, headline=HEADLINE),
        "clean": Rules(judge=judge_clean, metrics=metrics, headline=HEADLINE),
    },
    expected={"rows": 2500},
    files=("ChartQA_TEST.tsv",),
    layouts=(TABLE,),
    form=SHORT,
)
