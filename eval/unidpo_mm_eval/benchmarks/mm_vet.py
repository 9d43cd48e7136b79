"""MM-Vet: questions that need several capabilities; a judge says how right an answer is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, list_cell, read_tsv
from ..judge.judges import question_to
from ..judge.verdicts import rating
from ..models.chat import Message
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark
from ._judged import judge_rules

__all__ = ["BENCHMARK"]

ASKED = """You grade an answer to a question on a picture that you do not see.

Question: {question}
Right: {gold}
Answer: {response}

Parts of the right answer that <AND> joins are all needed; of those that <OR> joins one is enough.
Words may differ, facts may not. Grade how right the answer is from 0.0 (nothing of it) to 1.0 (all
of it), in steps of 0.1. End with one line: correctness: X"""


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row."""
    cell = row.get("capability") or row.need("category")
    skills = list_cell(cell) or [one.strip() for one in cell.split(",")]
    return Sample(
        id=row.id,
        where=row.where,
        question=row.need("question"),
        answers=(row.need("answer"),),
        cluster=row.picture,
        pictures=row.pictures,
        extras={"capabilities": "\n".join(one for one in skills if one)},
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    return read_tsv(path, sample, needs=("question", "answer"), pictures=pictures)


def ask(question: Sample, response: str, turn: int) -> Sequence[Message]:
    """Returns what the judge is asked."""
    parts = {"question": question.question, "gold": question.answers[0], "response": response}
    return question_to(ASKED.format(**parts))


def settle(question: Sample, verdicts: Sequence[float]) -> Judged:
    """Returns what a grade comes to."""
    return Judged(verdicts[0], f"{verdicts[0]:g}")


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the mean grade, and that of the questions that need each capability."""
    none: Mapping[str, str] = {}
    found = mean_metrics("score", [(one.cluster, one.score, none) for one in scored])
    skills = sorted({skill for one in scored for skill in _skills(one)})
    for skill in skills:
        rows = [(one.cluster, one.score, none) for one in scored if skill in _skills(one)]
        mean_metrics(f"score/capability/{skill}", rows, metrics=found)
    return found


def _skills(one: ScoredSample) -> list[str]:
    return one.extras["capabilities"].split("\n")


BENCHMARK = Benchmark(
    name="mm_vet",
    title="MM-Vet",
    read=read,
    families={
        "judge": judge_rules(
            ask=ask,
            read=lambda question: lambda text: rating(text, "correctness", 0, 1),
            settle=settle,
            metrics=metrics,
            headline="score",
        )
    },
    expected={"rows": 218},
    files=("MMVet.tsv",),
    layouts=(TABLE,),
)
