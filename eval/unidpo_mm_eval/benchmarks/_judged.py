"""Shared by benchmarks that a judge scores: what it is asked, and what becomes of its verdicts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..data.images import data_address, picture_reference
from ..data.samples import Judged, Sample, ScoredSample
from ..judge.judges import ask_all
from ..models.chat import Failure, Message
from ..stats.metrics import Metrics
from . import JUDGE_ERROR, Rules

__all__ = ["judge_rules", "pictures_of"]

Verdict = TypeVar("Verdict")


def judge_rules(
    *,
    ask: Callable[[Sample, str, int], Sequence[Message]],
    read: Callable[[Sample], Callable[[str], Verdict]],
    settle: Callable[[Sample, Sequence[Verdict]], Judged],
    metrics: Callable[[Sequence[ScoredSample]], Metrics],
    headline: str,
    times: int = 1,
) -> Rules:
    """Returns rules by a judge.

    Args:
        ask: (sample, response, which time) -> what the judge is asked.
        read: Sample -> what reads a verdict of an answer; it raises `Failure` where there is none.
        settle: (sample, verdicts) -> what they come to.
        metrics: Scored samples -> metrics.
        headline: The metric that stands for the benchmark.
        times: How often it is asked about one response.
    """

    def judge_all(
        asked: Sequence[tuple[Sample, str]], options: Mapping[str, Any]
    ) -> Sequence[Judged]:
        flat = [(number, turn) for number in range(len(asked)) for turn in range(times)]
        requests = [
            (read(asked[number][0]), partial(ask, *asked[number], turn)) for number, turn in flat
        ]
        verdicts: list[list[Any]] = [[] for _ in asked]
        for (number, _), answer in zip(flat, ask_all(options["judge"], requests), strict=True):
            verdicts[number].append(answer)
        both = zip(asked, verdicts, strict=True)
        return [_settled(sample, own, settle) for (sample, _), own in both]

    return Rules(judge_all=judge_all, metrics=metrics, headline=headline, by_judge=True)


def pictures_of(question: Sample) -> list[str]:
    """Returns the pictures of a question from a table, as data addresses."""
    found = (picture_reference(one, Path(), question.where) for one in question.pictures)
    return [data_address(one) for one in found]


def _settled(
    sample: Sample, verdicts: Sequence[Any], settle: Callable[[Sample, Sequence[Any]], Judged]
) -> Judged:
    failures = [one for one in verdicts if isinstance(one, Failure)]
    if failures:
        return Judged(0.0, None, note=f"{JUDGE_ERROR}: {failures[0]}")
    return settle(sample, verdicts)
