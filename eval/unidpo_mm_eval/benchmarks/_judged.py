"""Shared by benchmarks that an LLM judge scores: its prompts, and the grades from its verdicts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from unidpo_mm.inference.endpoint import ChatFailure
from unidpo_mm.inference.messages import data_url, user_message

from ..data.images import image_reference
from ..data.samples import Grade, GradedSample, Sample
from ..judge.judges import ask_all
from ..stats.metrics import Metrics
from . import JUDGE_ERROR, Scorer

Verdict = TypeVar("Verdict")


def judge_scorer(
    *,
    prompt: Callable[[Sample, str, int], str],  # (sample, response, round) -> the prompt
    read: Callable[[Sample, str], Verdict],  # reads a reply, or raises `ChatFailure`
    grade: Callable[[Sample, Sequence[Verdict]], Grade],  # of the verdicts of all rounds
    metrics: Callable[[Sequence[GradedSample]], Metrics],
    headline: str,
    rounds: int = 1,  # how often the judge is asked about one response
    with_images: bool = False,
) -> Scorer:
    """Build a scorer that asks an LLM judge."""

    def messages(sample: Sample, response: str, number: int) -> Sequence[Mapping[str, Any]]:
        references = (image_reference(image, Path(), sample.where) for image in sample.images)
        images = [data_url(reference) for reference in references] if with_images else []
        return user_message(prompt(sample, response, number), images)

    def grade_all(
        responses: Sequence[tuple[Sample, str]], options: Mapping[str, Any]
    ) -> Sequence[Grade]:
        requests = [
            (partial(read, sample), partial(messages, sample, response, number))
            for sample, response in responses
            for number in range(rounds)
        ]
        verdicts = ask_all(options["judge"], requests)
        return [
            _grade(sample, verdicts[rounds * number : rounds * (number + 1)], grade)
            for number, (sample, _) in enumerate(responses)
        ]

    return Scorer(grade_all=grade_all, metrics=metrics, headline=headline, uses_judge=True)


def _grade(
    sample: Sample, verdicts: Sequence[Any], grade: Callable[[Sample, Sequence[Any]], Grade]
) -> Grade:
    failures = [verdict for verdict in verdicts if isinstance(verdict, ChatFailure)]
    if failures:
        return Grade(0.0, None, note=f"{JUDGE_ERROR}: {failures[0]}")
    return grade(sample, verdicts)
