"""ChartQA test: questions about charts; numbers may differ by five percent."""

from collections.abc import Mapping
from typing import Any

from ..data.samples import Grade, Sample
from ..scorers.clean import clean_match, strip_wrapping
from ..scorers.short_answers import relaxed_match
from ._short_answers import short_benchmark


def grade(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the stripped response matches one of the answers."""
    return Grade(float(relaxed_match(response, sample.answers)), response.strip())


def grade_lmms(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the unmodified response matches the unparsed cell."""
    return Grade(float(relaxed_match(response, (sample.extras["cell"],), strip=False)), response)


def grade_clean(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the answer matches apart from wrapping, units and separators."""
    return Grade(float(clean_match(response, sample.answers)), strip_wrapping(response))


BENCHMARK = short_benchmark(
    "chartqa",
    "ChartQA test",
    "relaxed_accuracy",  # over all questions, which differs from the mean of both halves
    "ChartQA_TEST.tsv",
    2500,
    vlmevalkit=grade,
    lmms=grade_lmms,
    clean=grade_clean,
)
