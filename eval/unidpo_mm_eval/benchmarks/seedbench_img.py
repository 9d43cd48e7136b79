"""SEED-Bench, the questions on pictures."""

from collections.abc import Mapping
from typing import Any

from ..data.samples import Judged, Sample
from . import Rules
from ._options import accuracy, option_benchmark

__all__ = ["BENCHMARK"]


def judge_lmms(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the first character is the right letter, of either case."""
    first = response.strip()[:1]
    letter = first.upper() if first.upper() in sample.options else None
    return Judged(float(first.lower() == sample.answers[0].lower()), letter)


BENCHMARK = option_benchmark(
    "seedbench_img",
    "SEEDBench-IMG",
    file="SEEDBench_IMG.tsv",
    rows=14232,
    lmms=Rules(judge=judge_lmms, metrics=accuracy, headline="accuracy"),
)
