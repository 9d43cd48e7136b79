"""Comparison of two files of predictions by a judge, in both orders to cancel position effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.inference.endpoint import ChatFailure, ChatMessage
from unidpo_mm.inference.messages import data_url, user_message
from unidpo_mm.reasoning import strip_reasoning

from ..data.dataset import Dataset
from ..data.images import image_folder, image_reference
from ..data.predictions import OPENED, Predictions
from ..data.samples import Sample
from ..stats.intervals import Interval, bootstrap
from ..stats.metrics import Metrics, share
from .judges import Judge, ask_all
from .verdicts import POINTS, choice, comparison_prompt


@dataclass(frozen=True, kw_only=True)
class Matchup:
    """The verdicts on one question."""

    id: str
    # Verdict of each order for the second model, from -2 to 2; `None` without a verdict
    first: int | None
    second: int | None
    error: str | None = None  # Why there is none

    @property
    def outcome(self) -> str:
        """``win`` or ``loss`` of the second model if both orders agree, else ``tie``."""
        if self.first is None or self.second is None:
            return "error"
        if self.first * self.second <= 0:
            return "tie"
        return "win" if self.first > 0 else "loss"


@dataclass(frozen=True, kw_only=True)
class Duel:
    """The comparison of two files of predictions."""

    judge: str  # Name of the judge
    names: tuple[str, str]  # Names of both models; wins are those of the second
    matchups: Sequence[Matchup]  # One per question that both models answered
    # Win, tie, loss and error rates, and ``score`` with ties as halves
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]  # Metric -> 95 % interval, over clusters
    # Percentage of judged questions on which both orders name the same winner
    consistent_rate: float
    notes: Sequence[str] = field(default=())


def run_duel(
    data: Dataset,
    first: Predictions,
    second: Predictions,
    judge: Judge,
    *,
    names: tuple[str, str],
    images: Path | None = None,
) -> Duel:
    """Let a judge compare the second file of predictions with the first.

    The judge reads responses without their reasoning. `images` is the directory of image files.
    """
    folder = image_folder(data.path, images)
    pair = (first, second)
    shared = [
        sample
        for sample in data.samples
        if all(sample.id in p.by_id and not p.by_id[sample.id].error for p in pair)
    ]
    if not shared:
        text = "no sample has a response in both files"
        where = f"{first.path} and {second.path}"
        example = next(iter(first.by_id), "none")
        remedy = f"Use the ids of the data, such as '{data.samples[0].id}', not '{example}'"
        raise DataError(Problem(where, text, remedy))

    def messages(sample: Sample, a: str, b: str) -> list[ChatMessage]:
        references = (image_reference(image, folder, sample.where) for image in sample.images)
        urls = [data_url(reference) for reference in references]
        options = "".join(f"\n{letter}. {text}" for letter, text in sample.options.items())
        question = f"{sample.hint}\n{sample.question}{options}".strip()
        return user_message(comparison_prompt(question, a, b, has_images=bool(urls)), urls)

    requests = []
    for sample in shared:
        responses = _response(first, sample.id), _response(second, sample.id)
        for order in (responses, responses[::-1]):
            requests.append(
                (partial(choice, verdicts=tuple(POINTS)), partial(messages, sample, *order))
            )
    verdicts = ask_all(judge, requests)
    matchups = [_matchup(s, *verdicts[2 * n : 2 * n + 2]) for n, s in enumerate(shared)]
    metrics = _metrics(shared, matchups)
    judged = [matchup for matchup in matchups if matchup.outcome != "error"]
    consistent = sum(_sign(matchup.first) == _sign(matchup.second) for matchup in judged)
    return Duel(
        judge=judge.name,
        names=names,
        matchups=matchups,
        metrics=metrics.values(),
        intervals=bootstrap(metrics),
        consistent_rate=100 * consistent / max(len(judged), 1),
        notes=_notes(matchups, len(data.samples) - len(shared)),
    )


def _response(predictions: Predictions, sample_id: str) -> str:
    opened = bool(predictions.manifest.get(OPENED))
    return strip_reasoning(predictions.by_id[sample_id].response, opened=opened).text


def _notes(matchups: Sequence[Matchup], unanswered: int) -> list[str]:
    notes = []
    if unanswered:
        notes.append(f"samples without a response in both files: {unanswered}")
    failed = [matchup for matchup in matchups if matchup.error is not None]
    if failed:
        first = f"for example '{failed[0].id}': {failed[0].error}"
        notes.append(f"samples without a verdict: {len(failed)}, {first}")
    return notes


def _sign(verdict: int | None) -> int:
    return 0 if not verdict else 1 if verdict > 0 else -1


def _matchup(sample: Sample, first: str | ChatFailure, second: str | ChatFailure) -> Matchup:
    failures = [verdict for verdict in (first, second) if isinstance(verdict, ChatFailure)]
    return Matchup(
        id=sample.id,
        first=None if isinstance(first, ChatFailure) else -POINTS[first],
        second=None if isinstance(second, ChatFailure) else POINTS[second],
        error=str(failures[0]) if failures else None,
    )


def _metrics(samples: Sequence[Sample], matchups: Sequence[Matchup]) -> Metrics:
    """Return the rates; samples without verdict are reported separately and are not ties."""
    metrics = Metrics()
    for sample, matchup in zip(samples, matchups, strict=True):
        metrics.sums.add(sample.cluster, "n")
        metrics.sums.add(sample.cluster, matchup.outcome)
        if matchup.outcome != "error":
            metrics.sums.add(sample.cluster, "judged")
            points = {"win": 1.0, "tie": 0.5, "loss": 0.0}[matchup.outcome]
            metrics.sums.add(sample.cluster, "points", points)
    metrics.formulas = {
        "score": share("points", "judged"),
        "win_rate": share("win", "judged"),
        "tie_rate": share("tie", "judged"),
        "loss_rate": share("loss", "judged"),
        "judge_error_rate": share("error", "n"),
    }
    return metrics
