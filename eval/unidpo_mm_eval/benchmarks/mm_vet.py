"""MM-Vet: questions that need several capabilities; a judge rates correctness."""

from collections.abc import Sequence

from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TableRow, list_cell, table_reader
from ..judge.verdicts import rating
from ..protocols import judge_prompt
from ..stats.metrics import Metrics, mean_score
from . import Benchmark
from ._judged import judge_scorer


def sample(row: TableRow) -> Sample:
    """Build the question of a row."""
    cell = row.get("capability") or row.need("category")
    skills = list_cell(cell) or [name.strip() for name in cell.split(",")]
    return row.sample(
        question=row.need("question"),
        answers=(row.need("answer"),),
        extras={"capabilities": "\n".join(name for name in skills if name)},
    )


def prompt(question: Sample, response: str, number: int) -> str:
    """Return the prompt for the judge."""
    return judge_prompt("mm_vet").format(
        question=question.question, gold=question.answers[0], response=response
    )


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the mean grade, and that of the questions that need each capability."""
    result = mean_score("score", samples, by_label=False)
    skills = {item.id: item.extras["capabilities"].split("\n") for item in samples}
    for skill in sorted({name for names in skills.values() for name in names}):
        members = [item for item in samples if skill in skills[item.id]]
        mean_score(f"score/capability/{skill}", members, by_label=False, metrics=result)
    return result


BENCHMARK = Benchmark(
    name="mm_vet",
    title="MM-Vet",
    read=table_reader(sample, "question", "answer"),
    scorers={
        "judge": judge_scorer(
            prompt=prompt,
            read=lambda question, reply: rating(reply, "correctness", 0, 1),
            grade=lambda question, verdicts: Grade(verdicts[0], f"{verdicts[0]:g}"),
            metrics=metrics,
            headline="score",
        )
    },
    expected={"rows": 218},
    files=("MMVet.tsv",),
)
