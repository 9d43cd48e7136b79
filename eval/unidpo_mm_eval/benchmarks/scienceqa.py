"""ScienceQA test, the questions with an image."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.samples import Grade, Sample
from ..stats.metrics import mean_score
from . import Scorer
from ._options import option_benchmark


def grade_lmms(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the response is the correct letter, or begins with it and a period."""
    text, answer = response.strip(), sample.answers[0]
    if text.upper() == answer:
        return Grade(1.0, answer)
    if text[:1].isupper() and text[1:2] == ".":
        return Grade(float(text[0] == answer), text[0] if text[0] in sample.options else None)
    return Grade(0.0, text.upper() if text.upper() in sample.options else None)


BENCHMARK = option_benchmark(
    "scienceqa",
    "ScienceQA test, with images",
    file="ScienceQA_TEST.tsv",
    rows=2017,
    lmms=Scorer(grade=grade_lmms, metrics=partial(mean_score, "accuracy"), headline="accuracy"),
)
