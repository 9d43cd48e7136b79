"""MathVista mini, the part that rules can score: options, whole numbers, decimals, equal texts.

The kits ask a language model to find the answer in a response first. Without one a response has to
be the answer, or to choose an option; what else it says is not understood.
"""

import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, list_cell, read_tsv
from ..scorers.anls import levenshtein
from ..scorers.formats import SHORT
from ..scorers.options import chosen_option
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules

__all__ = ["BENCHMARK"]

CHOICE = "multi_choice"
KINDS = (CHOICE, "free_form")
NUMBERS = {"integer": int, "float": float}
LETTER = re.compile(r"\(([a-zA-Z])\)")


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row."""
    kind, answer = row.need("question_type"), row.need("answer")
    if kind and kind not in KINDS:
        row.note("question_type", f"found '{kind[:60]}'", f"Give {' or '.join(KINDS)}")
    options: dict[str, str] = {}
    if kind == CHOICE:
        choices = list_cell(row.need("choices")) or []
        options = dict(zip(string.ascii_uppercase, choices, strict=False))
        if answer not in options.values():
            row.note("choices", f"the answer '{answer[:60]}' is none of them", "Repair the row")
    skills = row.get("skills")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        options=options,
        answers=(answer,),
        labels=row.labels("task"),
        cluster=row.picture,
        pictures=row.pictures,
        extras={
            "answer_type": row.get("answer_type"),
            "precision": _precision(row),
            "skills": "\n".join(list_cell(skills) or [skills]),
        },
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    needs = ("question", "answer", "question_type", "answer_type", "choices")
    return read_tsv(path, sample, needs=needs, pictures=pictures)


def judge(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where a response chooses the option, or is the answer as a number or a text."""
    answer = question.answers[0]
    if question.options:
        letter = chosen_option(response, question.options).letter
        return Judged(float(letter is not None and question.options[letter] == answer), letter)
    number = NUMBERS.get(question.extras["answer_type"])
    if number is None:
        return Judged(float(response.strip() == answer.strip()), response.strip() or None)
    said, wanted = _number(number, response), _number(number, answer)
    return Judged(float(said is not None and said == wanted), None if said is None else str(said))


def judge_official(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the response, brought into the form of the answer, equals it.

    Of options the nearest text counts where no letter is found, so that nothing is unparsed.
    """
    said: str | None = response.strip()
    kind = question.extras["answer_type"]
    if question.options:
        said = _nearest_option(response.strip(), question.options)
    elif kind == "integer":
        value = _number(float, response)
        said = str(int(value)) if value is not None and math.isfinite(value) else None
    elif kind == "float":
        value = _number(float, response)
        digits = int(question.extras["precision"])
        said = None if value is None else str(round(value, digits))
    return Judged(float(said is not None and said == question.answers[0].strip()), said)


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the accuracy, whole, by task and by each of a question's skills."""
    found = mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in scored])
    for skill in sorted({skill for one in scored for skill in _skills(one)}):
        name = f"accuracy/skill/{skill}"
        having = [one for one in scored if skill in _skills(one)]
        mean_metrics(name, [(one.cluster, one.score, {}) for one in having], metrics=found)
    return found


def _skills(one: ScoredSample) -> list[str]:
    return [skill for skill in one.extras["skills"].split("\n") if skill]


def _precision(row: TsvRow) -> str:
    """Returns the digits behind the point as a whole number."""
    value = _number(float, row.get("precision") or "0")
    if value is None or not value.is_integer():
        row.note("precision", f"found '{row.get('precision')[:60]}'", "Give a whole number")
        return "0"
    return str(int(value))


def _number(kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except (ValueError, OverflowError):
        return None


def _nearest_option(text: str, options: Mapping[str, str]) -> str:
    found = LETTER.search(text)
    letter = found[1].upper() if found else text
    if letter in options:
        return options[letter]
    return min(options.values(), key=lambda option: levenshtein(letter, option))


BENCHMARK = Benchmark(
    name="mathvista",
    title="MathVista mini, by rules",
    read=read,
    families={
        "vlmevalkit": Rules(judge=judge, metrics=metrics, headline="accuracy"),
        "official": Rules(judge=judge_official, metrics=metrics, headline="accuracy"),
    },
    expected={"rows": 1000},
    files=("MathVista_MINI.tsv",),
    layouts=(TABLE,),
    form=SHORT,
)
