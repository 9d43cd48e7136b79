"""WildVision: a judge compares a model's answer with a reference's, in both orders."""

from collections.abc import Sequence
from pathlib import Path

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..judge.duel import VERDICTS, asked_to_compare, points
from ..judge.verdicts import choice
from ..models.chat import Message
from ..stats.metrics import Metrics, share
from . import Benchmark
from ._judged import judge_rules, pictures_of

__all__ = ["BENCHMARK"]

REWARDS = {2: 100, 1: 50, 0: 0, -1: -50, -2: -100}
"""Points of a verdict for the model -> its reward."""


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row."""
    return Sample(
        id=row.id,
        where=row.where,
        question=row.need("question"),
        answers=(row.need("answer"),),
        labels=row.labels("category"),
        cluster=row.picture,
        pictures=row.pictures,
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    return read_tsv(path, sample, needs=("question", "answer"), pictures=pictures)


def ask(question: Sample, response: str, turn: int) -> Sequence[Message]:
    """Returns what the judge is asked: first with the reference ahead, then with the model."""
    shown = pictures_of(question)
    answers = (question.answers[0], response)
    first, second = answers if turn == 0 else answers[::-1]
    return asked_to_compare(question.question, first, second, shown)


def settle(question: Sample, verdicts: Sequence[str]) -> Judged:
    """Returns what two verdicts come to: the mean of both orders."""
    own = [-points(verdicts[0]), points(verdicts[1])]
    reward = sum(REWARDS[one] for one in own) / 2
    wins = sum(one > 0 for one in own) / 2
    details = {"reward": reward, "wins": wins, "consistent": float(own[0] == own[1])}
    return Judged(wins, " and ".join(verdicts), details=details)


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the reward from -100 to 100 and the win rate; what was not judged has lost by far."""
    found = Metrics()
    for one in scored:
        found.sums.add(one.cluster, "n")
        found.sums.add(one.cluster, "reward", one.details.get("reward", -100.0))
        found.sums.add(one.cluster, "wins", one.details.get("wins", 0.0))
        found.sums.add(one.cluster, "consistent", one.details.get("consistent", 0.0))
    found.formulas = {
        "reward": share("reward", "n", scale=1.0),
        "win_rate": share("wins", "n"),
        "consistent_rate": share("consistent", "n"),
    }
    return found


BENCHMARK = Benchmark(
    name="wildvision",
    title="WildVision-Bench",
    read=read,
    families={
        "judge": judge_rules(
            ask=ask,
            read=lambda question: lambda text: choice(text, VERDICTS),
            settle=settle,
            metrics=metrics,
            headline="win_rate",
            times=2,
        )
    },
    expected={"rows": 500},
    files=("WildVision.tsv",),
    layouts=(TABLE,),
)
