"""Shared by benchmarks of yes-or-no questions."""

from collections.abc import Callable, Mapping
from typing import Any

from ..data.samples import Grade, Sample
from ..scorers.yes_no import YesNo
from . import GradeFunction


def grade_yes_no(extract: Callable[[str], YesNo | None]) -> GradeFunction:
    """Return a grade function: 1 if the extracted word is the answer."""

    def grade(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
        answer = extract(response)
        return Grade(float(answer == sample.answers[0]), answer)

    return grade
