"""TextVQA validation: text in photographs, ten answers per question."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.samples import Grade, Sample
from ..scorers.clean import strip_wrapping
from ..scorers.short_answers import VqaRule, normalize_vqa, vqa_accuracy
from ._short_answers import short_benchmark


def grade(sample: Sample, response: str, options: Mapping[str, Any], *, rule: VqaRule) -> Grade:
    """Return the VQA accuracy, averaged over all ways to omit one annotator."""
    score = vqa_accuracy(response, sample.answers, rule=rule)
    return Grade(score, normalize_vqa(response, rule=rule))


def grade_clean(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Grade the answer without quotes, boxes and other wrapping."""
    return grade(sample, strip_wrapping(response), options, rule="vlmevalkit")


BENCHMARK = short_benchmark(
    "textvqa",
    "TextVQA validation",
    "vqa_accuracy",
    "TextVQA_VAL.tsv",
    5000,
    by_label=False,
    vlmevalkit=partial(grade, rule="vlmevalkit"),
    lmms=partial(grade, rule="lmms"),
    clean=grade_clean,
)
