"""Shared by math benchmarks: JSON lines, graded by three profiles."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import Grade, GradedSample, Sample
from ..scorers.boxed import find_boxes
from ..scorers.formats import BOX
from ..scorers.math.pool import TIMEOUT, grade_all
from ..scorers.math.worker import PROFILES
from ..stats.metrics import Metrics, mean_score, ratio
from . import Benchmark, Scorer

Gold = Callable[[JsonRow], str]
LABELS = ("subject", "level")
QUESTIONS = ("question", "problem", "Question", "input")
IDS = ("id", "idx", "unique_id")


def answer_field(row: JsonRow) -> str:
    """Return the field `answer` of a row without dollar signs."""
    return row.text("answer").replace("$", "").strip()


def last_box(row: JsonRow) -> str:
    """Return the last boxed answer of a row's solution, or its answer if there is no box."""
    boxes = find_boxes(row.text("solution", optional=True))
    if not boxes and row.record.get("answer") is None:
        row.note("solution", r"there is no \boxed{...}", "Box the answer, or add a field 'answer'")
        return ""
    return boxes[-1] if boxes else row.text("answer")


def after_marks(row: JsonRow) -> str:
    """Return the text after #### in a row's answer, or all of it."""
    return row.text("answer").rpartition("####")[2].strip()


def math_benchmark(
    name: str, title: str, rows: int, gold: Gold = answer_field, *, units: bool = False
) -> Benchmark:
    """Build a math benchmark.

    `units` keeps the units of answers in the paper's grader.
    """
    return Benchmark(
        name=name,
        title=title,
        read=partial(_read, gold=gold),
        scorers={
            profile: Scorer(
                grade_all=partial(_grade_all, profile=profile, units=units),
                metrics=_metrics,
                headline="accuracy",
                libraries=("math-verify", "antlr4-python3-runtime", "sympy"),
            )
            for profile in PROFILES
        },
        expected={"rows": rows},
        files=(f"{name}/test.jsonl",),
        layouts=("test.jsonl, or its directory",),
        response_format=BOX,
    )


def _read(path: Path, with_images: bool, *, gold: Gold) -> Dataset:
    file = path / "test.jsonl" if path.is_dir() else path
    numbers = count()

    def sample(row: JsonRow) -> Sample:
        number = str(next(numbers))  # the id of rows without one, as the official code counts
        sample_id = next((row.text(n) for n in IDS if row.record.get(n) is not None), number)
        question = next((name for name in QUESTIONS if name in row.record), QUESTIONS[0])
        answer = gold(row)
        if not answer and not row.problems:
            row.note("answer", "the answer is empty", "Add the correct answer")
        return Sample(
            id=sample_id,
            where=row.where,
            question=row.text(question),
            answers=(answer,),
            labels={n: row.text(n) for n in LABELS if row.record.get(n) is not None},
        )

    return read_json_files(file, sample, pattern="test.jsonl")


def _grade_all(
    responses: Sequence[tuple[Sample, str]], options: object, *, profile: str, units: bool
) -> list[Grade]:
    answers = [(sample.answers[0], response) for sample, response in responses]
    return grade_all(profile, answers, units=units)


def _metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the accuracy, also per label, and properties of the responses."""
    metrics = mean_score("accuracy", samples)
    for sample in samples:
        metrics.sums.add(sample.cluster, "several", len(find_boxes(sample.response or "")) > 1)
        metrics.sums.add(sample.cluster, "late", sample.note == TIMEOUT)
    metrics.formulas["several_boxes_rate"] = ratio("several", "accuracy:n")
    metrics.formulas["timeout_rate"] = ratio("late", "accuracy:n")
    return metrics
