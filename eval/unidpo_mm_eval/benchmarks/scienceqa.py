"""ScienceQA test, the questions with a picture."""

from collections.abc import Mapping
from typing import Any

from ..data.samples import Judged, Sample
from . import Rules
from ._options import accuracy, option_benchmark

__all__ = ["BENCHMARK"]


def judge_lmms(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the response is the right letter, or begins with it and a period."""
    said, answer = response.strip(), sample.answers[0]
    if said.upper() == answer:
        return Judged(1.0, answer)
    if said[:1].isupper() and said[1:2] == ".":
        return Judged(float(said[0] == answer), said[0] if said[0] in sample.options else None)
    whole = said.upper()
    return Judged(0.0, whole if whole in sample.options else None)


BENCHMARK = option_benchmark(
    "scienceqa",
    "ScienceQA test, with pictures",
    file="ScienceQA_TEST.tsv",
    rows=2017,
    lmms=Rules(judge=judge_lmms, metrics=accuracy, headline="accuracy"),
)
