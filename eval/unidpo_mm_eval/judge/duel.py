"""Two answers to one question before a judge, in both orders: their place decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.reasoning import strip_reasoning

from ..data.dataset import DataSet
from ..data.images import data_address, picture_folder, picture_reference
from ..data.predictions import OPENED, Predictions
from ..data.samples import Sample
from ..models.chat import Failure, Message
from ..stats.intervals import Interval, bootstrap
from ..stats.metrics import Metrics, share
from .judges import Judge, ask_all, question_to
from .verdicts import choice

__all__ = ["VERDICTS", "Bout", "Duel", "asked_to_compare", "duel", "points"]

VERDICTS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
POINTS = dict(zip(VERDICTS, (2, 1, 0, -1, -2), strict=True))
ASKED = """Two assistants answered the same question{shown}.

Question: {question}

Assistant A: {first}

Assistant B: {second}

Judge which answer is better: right, helpful, to the point, and of what is shown rather than
invented. Neither the order of the answers nor their length decides. Give your reasons in a few
sentences and end with one of [[A>>B]] (A is much better), [[A>B]] (A is better), [[A=B]] (they are
alike), [[B>A]] or [[B>>A]]."""


def asked_to_compare(
    question: str, first: str, second: str, images: Sequence[str] = ()
) -> list[Message]:
    """Returns what a judge is asked of two answers; pictures are data addresses."""
    shown = " about this picture" if images else ""
    text = ASKED.format(shown=shown, question=question, first=first, second=second)
    return question_to(text, images)


def points(verdict: str) -> int:
    """Returns 2 where A is much better, to -2 where B is."""
    return POINTS[verdict]


@dataclass(frozen=True, kw_only=True)
class Bout:
    """One question before the judge.

    Attributes:
        id: Of the question.
        first, second: Verdict of each order for the second model, from -2 to 2; None where the
            judge gave none.
        error: Why not.
    """

    id: str
    first: int | None
    second: int | None
    error: str | None = None

    @property
    def outcome(self) -> str:
        """``win`` or ``loss`` of the second model where both orders say so, else ``tie``."""
        if self.first is None or self.second is None:
            return "error"
        if self.first * self.second <= 0:
            return "tie"
        return "win" if self.first > 0 else "loss"


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Two files of predictions before a judge.

    Attributes:
        judge: Its name.
        names: Of both models; wins are the second's.
        bouts: One for each question that both answered.
        metrics: Win, tie, loss and error rates, and ``score`` with ties as halves.
        intervals: Metric -> 95 % interval, over clusters.
        consistent_rate: Percent of judged questions on which both orders name the same winner.
    """

    judge: str
    names: tuple[str, str]
    bouts: Sequence[Bout]
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    consistent_rate: float
    notes: Sequence[str] = field(default=())


def duel(
    data: DataSet,
    first: Predictions,
    second: Predictions,
    judge: Judge,
    *,
    names: tuple[str, str],
    images: Path | None = None,
) -> Duel:
    """Return how a judge likes the second file of predictions beside the first.

    The judge reads the answers without their reasoning.

    Args:
        data: The questions.
        first: What one model said.
        second: What the other said.
        judge: Who judges.
        names: Of both models.
        images: Folder of pictures that the data name.
    """
    folder = picture_folder(data.path, images)
    shared = [
        one
        for one in data.samples
        if all(one.id in said.by_id and not said.by_id[one.id].error for said in (first, second))
    ]
    if not shared:
        found = "no question of the data is answered in both files"
        example = next(iter(first.by_id), "none")
        where = f"{first.path} and {second.path}"
        remedy = f"Write the ids of the data: '{data.samples[0].id}' there, '{example}' here"
        raise DataError(Problem(where, found, remedy))

    def put(one: Sample, ahead: str, behind: str) -> list[Message]:
        shown = [data_address(picture_reference(p, folder, one.where)) for p in one.pictures]
        return asked_to_compare(_worded(one), ahead, behind, shown)

    requests = []
    for one in shared:
        answers = _answer(first, one.id), _answer(second, one.id)
        requests += [(_read, partial(put, one, *pair)) for pair in (answers, answers[::-1])]
    said = ask_all(judge, requests)
    bouts = [
        _bout(one, said[2 * number], said[2 * number + 1]) for number, one in enumerate(shared)
    ]
    metrics = _metrics(shared, bouts)
    judged = [one for one in bouts if one.outcome != "error"]
    same = sum(_sign(one.first) == _sign(one.second) for one in judged)
    left_out = len(data.samples) - len(shared)
    return Duel(
        judge=judge.name,
        names=names,
        bouts=bouts,
        metrics=metrics.values(),
        intervals=bootstrap(metrics),
        consistent_rate=100 * same / max(len(judged), 1),
        notes=_notes(bouts, left_out),
    )


def _answer(predictions: Predictions, sample_id: str) -> str:
    opened = bool(predictions.manifest.get(OPENED))
    return strip_reasoning(predictions.by_id[sample_id].response, opened=opened).text


def _notes(bouts: Sequence[Bout], left_out: int) -> list[str]:
    told = []
    if left_out:
        told.append(f"questions that one of the two did not answer: {left_out}")
    failed = [one for one in bouts if one.error is not None]
    if failed:
        first = f"as of '{failed[0].id}': {failed[0].error}"
        told.append(f"questions that the judge did not judge: {len(failed)}, {first}")
    return told


def _sign(verdict: int | None) -> int:
    return 0 if not verdict else 1 if verdict > 0 else -1


def _read(text: str) -> str:
    return choice(text, VERDICTS)


def _worded(one: Sample) -> str:
    options = "".join(f"\n{letter}. {text}" for letter, text in one.options.items())
    return f"{one.hint}\n{one.question}{options}".strip()


def _bout(one: Sample, ahead: str | Failure, behind: str | Failure) -> Bout:
    failed = next((said for said in (ahead, behind) if isinstance(said, Failure)), None)
    return Bout(
        id=one.id,
        first=None if isinstance(ahead, Failure) else -points(ahead),
        second=None if isinstance(behind, Failure) else points(behind),
        error=None if failed is None else str(failed),
    )


def _metrics(samples: Sequence[Sample], bouts: Sequence[Bout]) -> Metrics:
    """Returns the rates; what was not judged stands beside them and is no tie."""
    found = Metrics()
    for sample, bout in zip(samples, bouts, strict=True):
        found.sums.add(sample.cluster, "n")
        found.sums.add(sample.cluster, bout.outcome)
        if bout.outcome != "error":
            found.sums.add(sample.cluster, "judged")
            half = {"win": 1.0, "tie": 0.5, "loss": 0.0}[bout.outcome]
            found.sums.add(sample.cluster, "half", half)
    found.formulas = {
        "score": share("half", "judged"),
        "win_rate": share("win", "judged"),
        "tie_rate": share("tie", "judged"),
        "loss_rate": share("loss", "judged"),
        "judge_error_rate": share("error", "n"),
    }
    return found
