"""Shared by benchmarks of questions that yes or no answers."""

from collections.abc import Callable, Mapping
from typing import Any

from ..data.samples import Judged, Sample
from ..scorers.yes_no import YesNo

__all__ = ["judge_yes_no"]


def judge_yes_no(
    extract: Callable[[str], YesNo | None],
) -> Callable[[Sample, str, Mapping[str, Any]], Judged]:
    """Returns what scores 1 where the word that a rule finds in a response is the answer."""

    def judge(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
        said = extract(response)
        return Judged(float(said == sample.answers[0]), said)

    return judge
