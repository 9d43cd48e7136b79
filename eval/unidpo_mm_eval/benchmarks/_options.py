"""Shared by benchmarks whose questions have lettered options."""

from collections.abc import Callable, Mapping
from typing import Any

from ..data.samples import Grade, Sample
from ..data.tables import TableRow, table_reader
from ..scorers.clean import clean_option
from ..scorers.formats import LETTER
from ..scorers.options import Choice, chosen_option
from . import Benchmark, GradeFunction, Scorer


def option_sample(row: TableRow) -> Sample:
    """Build a question with options from a row of VLMEvalKit's table."""
    options, answer = row.options(), row.letter()
    if not options:
        row.note("A", "the question has no options", "Add at least one")
    elif answer and answer not in options:
        text = f"the answer is '{answer}' but the options are {', '.join(options)}"
        row.note("answer", text, "Use the letter of an option")
    return row.sample(hint=row.get("hint"), options=options, answers=(answer,), labels=row.labels())


read_options = table_reader(option_sample, "question", "A", "answer")


def option_scorers(**fields: Any) -> dict[str, Scorer]:
    """Return VLMEvalKit's scorer without judge and the lenient one, with some fields of both."""

    def vlmevalkit(sample: Sample, response: str, options: Mapping[str, Any]) -> Choice:
        return chosen_option(response, sample.options, rule=options.get("mcq", "mcq-v1"))

    def clean(sample: Sample, response: str, options: Mapping[str, Any]) -> Choice:
        return clean_option(response, sample.options)

    return {
        "vlmevalkit": Scorer(grade=_grade_choice(vlmevalkit), **fields),
        "clean": Scorer(grade=_grade_choice(clean), **fields),
    }


def _grade_choice(choose: Callable[[Sample, str, Mapping[str, Any]], Choice]) -> GradeFunction:
    def grade(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
        choice = choose(sample, response, options)
        correct = choice.letter is not None and choice.letter == sample.answers[0]
        return Grade(float(correct), choice.letter, note="refused" if choice.refused else "")

    return grade


def option_benchmark(name: str, title: str, file: str, rows: int, **scorers: Scorer) -> Benchmark:
    """Build a benchmark of questions with options and without circular copies.

    `scorers` are additional to those of `option_scorers`.
    """
    return Benchmark(
        name=name,
        title=title,
        read=read_options,
        scorers=option_scorers() | scorers,
        expected={"rows": rows},
        files=(file,),
        response_format=LETTER,
    )
