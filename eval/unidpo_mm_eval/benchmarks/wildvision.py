"""WildVision: a judge compares a model's response with a reference's, in both orders."""

from collections.abc import Sequence

from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TableRow, table_reader
from ..judge.verdicts import POINTS, choice, comparison_prompt
from ..stats.metrics import Metrics, share
from . import Benchmark
from ._judged import judge_scorer

REWARDS = {2: 100, 1: 50, 0: 0, -1: -50, -2: -100}
"""Points of a verdict for the model -> its reward."""


def sample(row: TableRow) -> Sample:
    """Build the question of a row."""
    return row.sample(
        question=row.need("question"), answers=(row.need("answer"),), labels=row.labels("category")
    )


def prompt(question: Sample, response: str, number: int) -> str:
    """Return the prompt for the judge: first with the reference ahead, then with the model."""
    pair = (question.answers[0], response)
    first, second = pair if number == 0 else pair[::-1]
    return comparison_prompt(question.question, first, second, has_images=bool(question.images))


def grade(question: Sample, verdicts: Sequence[str]) -> Grade:
    """Return the mean of the verdicts of both orders."""
    points = [-POINTS[verdicts[0]], POINTS[verdicts[1]]]
    wins = sum(value > 0 for value in points) / 2
    details = {
        "reward": sum(REWARDS[value] for value in points) / 2,
        "wins": wins,
        "consistent": float(points[0] == points[1]),
    }
    return Grade(wins, " and ".join(verdicts), details=details)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the reward from -100 to 100 and the win rate; no verdict counts as a clear loss."""
    result = Metrics()
    for item in samples:
        result.sums.add(item.cluster, "n")
        for name, default in (("reward", -100.0), ("wins", 0.0), ("consistent", 0.0)):
            result.sums.add(item.cluster, name, item.details.get(name, default))
    result.formulas = {
        "reward": share("reward", "n", scale=1.0),
        "win_rate": share("wins", "n"),
        "consistent_rate": share("consistent", "n"),
    }
    return result


BENCHMARK = Benchmark(
    name="wildvision",
    title="WildVision-Bench",
    read=table_reader(sample, "question", "answer"),
    scorers={
        "judge": judge_scorer(
            prompt=prompt,
            read=lambda question, reply: choice(reply, tuple(POINTS)),
            grade=grade,
            metrics=metrics,
            headline="win_rate",
            rounds=2,
            with_images=True,
        )
    },
    expected={"rows": 500},
    files=("WildVision.tsv",),
)
