"""MMStar: questions that cannot be answered without the picture, in 6 and 18 categories."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.samples import Judged, Sample, ScoredSample
from ..scorers.option_phrases import phrased_option
from ..stats.metrics import Metrics, Totals
from . import Rules
from ._options import accuracy, option_benchmark

__all__ = ["BENCHMARK"]


def judge_lmms(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where lmms-eval's search for a letter finds the right one."""
    letter = phrased_option(response)
    return Judged(float(letter == sample.answers[0]), letter)


def metrics_lmms(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns accuracies, and as `average` the mean over the narrow categories of their means."""
    found = accuracy(scored)
    narrow = [found.formulas[name] for name in found.formulas if name.startswith(NARROW)]

    def average(totals: Totals) -> Any:
        return sum(formula(totals) for formula in narrow) / len(narrow)

    if narrow:
        found.formulas["average"] = average
    return found


NARROW = "accuracy/l2-category/"

BENCHMARK = option_benchmark(
    "mmstar",
    "MMStar",
    file="MMStar.tsv",
    rows=1500,
    lmms=Rules(judge=judge_lmms, metrics=metrics_lmms, headline="average"),
)
