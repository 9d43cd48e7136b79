"""LLaVA-Bench in the wild: a judge gives points to a reference answer and to the model's."""

from collections.abc import Sequence
from pathlib import Path

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..judge.judges import question_to
from ..judge.verdicts import first_line_numbers
from ..models.chat import Message
from ..stats.metrics import Formula, Metrics, Totals, divided, share
from . import Benchmark
from ._judged import judge_rules

__all__ = ["BENCHMARK"]

MOST = 10
ASKED = """Two assistants answered a question on a picture. You do not see it; it is described:

{caption}

Question: {question}

Assistant 1: {reference}

Assistant 2: {response}

Judge how helpful, relevant, accurate and detailed each answer is, whatever its place or length,
and give each of them 1 to 10 points. Write both numbers alone on the first line, assistant 1
first, with a space between them. Your reasons come on the lines after it."""


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row."""
    return Sample(
        id=row.id,
        where=row.where,
        question=row.need("question"),
        answers=(row.need("gpt4_ans"),),
        labels=row.labels("category"),
        cluster=row.picture,
        pictures=row.pictures,
        extras={"caption": row.need("caption")},
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    needs = ("question", "gpt4_ans", "caption", "category")
    return read_tsv(path, sample, needs=needs, pictures=pictures)


def ask(question: Sample, response: str, turn: int) -> Sequence[Message]:
    """Returns what the judge is asked."""
    text = ASKED.format(
        caption=question.extras["caption"],
        question=question.question,
        reference=question.answers[0],
        response=response,
    )
    return question_to(text)


def settle(question: Sample, verdicts: Sequence[Sequence[float]]) -> Judged:
    """Returns what points come to."""
    reference, own = verdicts[0]
    return Judged(own / MOST, f"{own:g} to {reference:g}", details={"own": own, "other": reference})


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns points relative to the reference's, and raw, from 0 to 100; whole and by category.

    What was not answered or not judged has no point; the reference then has its average.
    """
    found = Metrics(formulas={"relative": _relative("")})
    for one in scored:
        kind = one.labels.get("category")
        for part in ["", *([f"/category/{kind}"] if kind else [])]:
            found.sums.add(one.cluster, f"n{part}")
            found.sums.add(one.cluster, f"own{part}", one.details.get("own", 0.0))
            if "other" in one.details:
                found.sums.add(one.cluster, f"judged{part}")
                found.sums.add(one.cluster, f"other{part}", one.details["other"])
            found.formulas[f"relative{part}"] = _relative(part)
            found.formulas[f"raw{part}"] = share(f"own{part}", f"n{part}", scale=MOST)
    return found


def _relative(part: str) -> Formula:
    def formula(totals: Totals) -> object:
        own = divided(totals[f"own{part}"], totals[f"n{part}"])
        return 100 * divided(own, divided(totals[f"other{part}"], totals[f"judged{part}"]))

    return formula


BENCHMARK = Benchmark(
    name="llava_wild",
    title="LLaVA-Bench in the wild",
    read=read,
    families={
        "judge": judge_rules(
            ask=ask,
            read=lambda question: lambda text: first_line_numbers(text, 2, 1, MOST),
            settle=settle,
            metrics=metrics,
            headline="relative",
        )
    },
    expected={"rows": 60},
    files=("LLaVABench.tsv",),
    layouts=(TABLE,),
)
