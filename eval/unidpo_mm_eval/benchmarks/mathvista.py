"""MathVista mini, scored by rules: options, integers, decimals and equal texts.

The reference toolkits first ask a language model to extract the answer from a response. Without one
a response has to be the answer, or to choose an option.
"""

import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TableRow, list_cell, table_reader
from ..scorers.formats import SHORT
from ..scorers.options import chosen_option
from ..scorers.short_answers import levenshtein
from ..stats.metrics import Metrics, mean_score
from . import Benchmark, Scorer

CHOICE = "multi_choice"
KINDS = (CHOICE, "free_form")
NUMBERS = {"integer": int, "float": float}
LETTER = re.compile(r"\(([a-zA-Z])\)")


def sample(row: TableRow) -> Sample:
    """Build the question of a row."""
    kind, answer = row.choose("question_type", KINDS), row.need("answer")
    options: dict[str, str] = {}
    if kind == CHOICE:
        choices = list_cell(row.need("choices")) or []
        options = dict(zip(string.ascii_uppercase, choices, strict=False))
        if answer not in options.values():
            row.note("choices", f"the answer '{answer[:60]}' is not among them", "Fix the row")
    skills = row.get("skills")
    return row.sample(
        options=options,
        answers=(answer,),
        labels=row.labels("task"),
        extras={
            "answer_type": row.get("answer_type"),
            "precision": _precision(row),
            "skills": "\n".join(list_cell(skills) or [skills]),
        },
    )


def grade(question: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if a response chooses the option, or equals the answer as a number or text."""
    answer = question.answers[0]
    if question.options:
        letter = chosen_option(response, question.options).letter
        return Grade(float(letter is not None and question.options[letter] == answer), letter)
    number = NUMBERS.get(question.extras["answer_type"])
    if number is None:
        return Grade(float(response.strip() == answer.strip()), response.strip() or None)
    value, target = _number(number, response), _number(number, answer)
    return Grade(
        float(value is not None and value == target), None if value is None else str(value)
    )


def grade_official(question: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the response, converted to the form of the answer, equals it.

    If no option letter is found, the most similar option counts, so that every response is parsed.
    """
    answer: str | None = response.strip()
    kind = question.extras["answer_type"]
    if question.options:
        answer = _nearest_option(response.strip(), question.options)
    elif kind == "integer":
        value = _number(float, response)
        answer = str(int(value)) if value is not None and math.isfinite(value) else None
    elif kind == "float":
        value = _number(float, response)
        digits = int(question.extras["precision"])
        answer = None if value is None else str(round(value, digits))
    return Grade(float(answer is not None and answer == question.answers[0].strip()), answer)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the accuracy, also by task and by each of a question's skills."""
    result = mean_score("accuracy", samples)
    skills = {s.id: [name for name in s.extras["skills"].split("\n") if name] for s in samples}
    for skill in sorted({name for names in skills.values() for name in names}):
        members = [s for s in samples if skill in skills[s.id]]
        mean_score(f"accuracy/skill/{skill}", members, by_label=False, metrics=result)
    return result


def _precision(row: TableRow) -> str:
    """Return the number of decimals as an integer."""
    value = _number(float, row.get("precision") or "0")
    if value is None or not value.is_integer():
        row.note("precision", f"got '{row.get('precision')[:60]}'", "Use an integer")
        return "0"
    return str(int(value))


def _number(kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except (ValueError, OverflowError):
        return None


def _nearest_option(text: str, options: Mapping[str, str]) -> str:
    match = LETTER.search(text)
    letter = match[1].upper() if match else text
    if letter in options:
        return options[letter]
    return min(options.values(), key=lambda option: levenshtein(letter, option))


BENCHMARK = Benchmark(
    name="mathvista",
    title="MathVista mini, by rules",
    read=table_reader(sample, "question", "answer", "question_type", "answer_type", "choices"),
    scorers={
        "vlmevalkit": Scorer(grade=grade, metrics=metrics, headline="accuracy"),
        "official": Scorer(grade=grade_official, metrics=metrics, headline="accuracy"),
    },
    expected={"rows": 1000},
    files=("MathVista_MINI.tsv",),
    response_format=SHORT,
)
