"""LLaVA-Bench in the wild: a judge rates a reference response and the model's."""

from collections.abc import Sequence

from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TableRow, table_reader
from ..judge.verdicts import first_line_numbers
from ..protocols import judge_prompt
from ..stats.metrics import Formula, Metrics, divide, share
from . import Benchmark
from ._judged import judge_scorer

BEST = 10


def sample(row: TableRow) -> Sample:
    """Build the question of a row."""
    return row.sample(
        question=row.need("question"),
        answers=(row.need("gpt4_ans"),),
        labels=row.labels("category"),
        extras={"caption": row.need("caption")},
    )


def prompt(question: Sample, response: str, number: int) -> str:
    """Return the prompt for the judge."""
    return judge_prompt("llava_wild").format(
        caption=question.extras["caption"],
        question=question.question,
        reference=question.answers[0],
        response=response,
    )


def grade(question: Sample, verdicts: Sequence[Sequence[float]]) -> Grade:
    """Return the points as a grade."""
    other, points = verdicts[0]
    details = {"own": points, "other": other}
    return Grade(points / BEST, f"{points:g} to {other:g}", details=details)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the points relative to the reference's, and raw from 0 to 100, also by category.

    A sample without response or verdict has no points; the reference then has its average.
    """
    result = Metrics(formulas={"relative": _relative("")})
    for item in samples:
        category = item.labels.get("category")
        for part in ["", *([f"/category/{category}"] if category else [])]:
            result.sums.add(item.cluster, f"n{part}")
            result.sums.add(item.cluster, f"own{part}", item.details.get("own", 0.0))
            if "other" in item.details:
                result.sums.add(item.cluster, f"judged{part}")
                result.sums.add(item.cluster, f"other{part}", item.details["other"])
            result.formulas[f"relative{part}"] = _relative(part)
            result.formulas[f"raw{part}"] = share(f"own{part}", f"n{part}", scale=BEST)
    return result


def _relative(part: str) -> Formula:
    return lambda totals: (
        100
        * divide(
            divide(totals[f"own{part}"], totals[f"n{part}"]),
            divide(totals[f"other{part}"], totals[f"judged{part}"]),
        )
    )


BENCHMARK = Benchmark(
    name="llava_wild",
    title="LLaVA-Bench in the wild",
    read=table_reader(sample, "question", "gpt4_ans", "caption", "category"),
    scorers={
        "judge": judge_scorer(
            prompt=prompt,
            read=lambda question, reply: first_line_numbers(reply, 2, 1, BEST),
            grade=grade,
            metrics=metrics,
            headline="relative",
        )
    },
    expected={"rows": 60},
    files=("LLaVABench.tsv",),
)
