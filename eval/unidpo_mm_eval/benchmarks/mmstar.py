"""MMStar: questions that cannot be answered without the image, in 6 and 18 categories."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.samples import Grade, GradedSample, Sample
from ..scorers.options import phrased_option
from ..stats.metrics import Metrics, mean_of, mean_score
from . import Scorer
from ._options import option_benchmark

NARROW = "accuracy/l2-category/"


def grade_lmms(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if lmms-eval's search for a letter finds the correct one."""
    letter = phrased_option(response)
    return Grade(float(letter == sample.answers[0]), letter)


def metrics_lmms(samples: Sequence[GradedSample]) -> Metrics:
    """Return accuracies, and as `average` the unweighted mean over the 18 categories."""
    result = mean_score("accuracy", samples)
    narrow = [result.formulas[name] for name in result.formulas if name.startswith(NARROW)]
    if narrow:
        result.formulas["average"] = mean_of(narrow)
    return result


BENCHMARK = option_benchmark(
    "mmstar",
    "MMStar",
    file="MMStar.tsv",
    rows=1500,
    lmms=Scorer(grade=grade_lmms, metrics=metrics_lmms, headline="average"),
)
