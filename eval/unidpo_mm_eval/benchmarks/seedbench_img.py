"""SEED-Bench, the questions about images."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.samples import Grade, Sample
from ..stats.metrics import mean_score
from . import Scorer
from ._options import option_benchmark


def grade_lmms(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the first character is the correct letter in upper or lower case."""
    first = response.strip()[:1]
    letter = first.upper() if first.upper() in sample.options else None
    return Grade(float(first.lower() == sample.answers[0].lower()), letter)


BENCHMARK = option_benchmark(
    "seedbench_img",
    "SEEDBench-IMG",
    file="SEEDBench_IMG.tsv",
    rows=14232,
    lmms=Scorer(grade=grade_lmms, metrics=partial(mean_score, "accuracy"), headline="accuracy"),
)
