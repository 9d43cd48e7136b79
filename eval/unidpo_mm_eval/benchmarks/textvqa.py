"""TextVQA validation: text in photographs, ten answers a question."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE
from ..scorers.clean import cleaned
from ..scorers.formats import SHORT
from ..scorers.vqa import VqaRule, normalised, vqa_accuracy
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules
from ._short_answers import read_short_answers

__all__ = ["BENCHMARK"]

HEADLINE = "vqa_accuracy"


def judge(question: Sample, response: str, protocol: Mapping[str, Any], *, rule: VqaRule) -> Judged:
    """Returns the share of people that a response agrees with, one left out at a time."""
    score = vqa_accuracy(response, question.answers, rule=rule)
    return Judged(score, normalised(response, rule=rule))


def judge_clean(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns the same for the answer without what it is wrapped in."""
    return judge(question, cleaned(response), protocol, rule="vlmevalkit")


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the mean over all questions."""
    return mean_metrics(HEADLINE, [(one.cluster, one.score, {}) for one in scored])


BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA validation",
    read=read_short_answers,
    families={
        family: Rules(judge=judged, metrics=metrics, headline=HEADLINE)
        for family, judged in (
            ("vlmevalkit", partial(judge, rule="vlmevalkit")),
            ("lmms", partial(judge, rule="lmms")),
            ("clean", judge_clean),
        )
    },
    expected={"rows": 5000},
    files=("TextVQA_VAL.tsv",),
    layouts=(TABLE,),
    form=SHORT,
)
