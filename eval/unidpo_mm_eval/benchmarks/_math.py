"""Shared by benchmarks of math problems: files of JSON lines, three ways to grade."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..data.dataset import DataSet
from ..data.json_files import JsonRow, read_lines
from ..data.samples import Judged, Sample, ScoredSample
from ..scorers.boxed import boxed
from ..scorers.formats import BOX
from ..scorers.math.pool import TIMEOUT, grade_all
from ..scorers.math.worker import PROFILES
from ..stats.metrics import Metrics, mean_metrics, ratio
from . import Benchmark, Rules

__all__ = ["after_marks", "field_of", "last_box", "math_benchmark"]

Gold = Callable[[JsonRow], str]
LABELS = ("subject", "level")
QUESTIONS = ("question", "problem", "Question", "input")
IDS = ("id", "idx", "unique_id")


def field_of(name: str) -> Gold:
    """Returns what reads the gold answer of a field, dollar signs taken off."""
    return lambda row: row.text(name).replace("$", "").strip()


def last_box(row: JsonRow) -> str:
    """Returns the last boxed answer of a row's solution; its answer where there is no box."""
    found = boxed(row.text("solution", optional=True))
    if not found and row.record.get("answer") is None:
        row.note("solution", r"it holds no \boxed{...}", "Box the answer, or give it as 'answer'")
        return ""
    return found[-1] if found else row.text("answer")


def after_marks(row: JsonRow) -> str:
    """Returns what stands behind the #### of a row's answer; all of it where there are none."""
    return row.text("answer").rpartition("####")[2].strip()


def math_benchmark(
    name: str, title: str, rows: int, gold: Gold, *, units: bool = False
) -> Benchmark:
    """Returns a benchmark of math problems.

    Args:
        name: Of its file.
        title: As people call it.
        rows: How many a whole file has.
        gold: Reads the right answer of a row.
        units: The paper's grader leaves units in answers.
    """
    return Benchmark(
        name=name,
        title=title,
        read=partial(_read, gold=gold),
        families={
            profile: Rules(
                judge_all=partial(_judge_all, profile=profile, units=units),
                metrics=_metrics,
                headline="accuracy",
                libraries=("math-verify", "antlr4-python3-runtime", "sympy"),
            )
            for profile in PROFILES
        },
        expected={"rows": rows},
        files=(f"{name}/test.jsonl",),
        layouts=("test.jsonl, or its folder",),
        form=BOX,
    )


def _read(path: Path, pictures: bool, *, gold: Gold) -> DataSet:
    file = path / "test.jsonl" if path.is_dir() else path
    numbers = iter(range(1 << 62))

    def sample(row: JsonRow) -> Sample:
        number = str(next(numbers))  # where rows have no id, as the official code counts them
        own = next((row.text(name) for name in IDS if row.record.get(name) is not None), number)
        question = next((name for name in QUESTIONS if name in row.record), QUESTIONS[0])
        answer = gold(row)
        if not answer and not row.problems:
            row.note("answer", "it is empty", "Give the right answer")
        return Sample(
            id=own,
            where=row.where,
            question=row.text(question),
            answers=(answer,),
            labels={
                label: row.text(label) for label in LABELS if row.record.get(label) is not None
            },
        )

    return read_lines(file, sample, pattern="test.jsonl")


def _judge_all(
    asked: Sequence[tuple[Sample, str]], options: object, *, profile: str, units: bool
) -> list[Judged]:
    answers = [(sample.answers[0], response) for sample, response in asked]
    return grade_all(profile, answers, units=units)


def _metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the accuracy, whole and by label, and what to know of the responses."""
    found = mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in scored])
    for one in scored:
        found.sums.add(one.cluster, "several", len(boxed(one.response or "")) > 1)
        found.sums.add(one.cluster, "late", one.note == TIMEOUT)
    found.formulas["several_boxes_rate"] = ratio("several", "accuracy:n")
    found.formulas["timeout_rate"] = ratio("late", "accuracy:n")
    return found
