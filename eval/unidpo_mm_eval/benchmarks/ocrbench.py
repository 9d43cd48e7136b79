"""OCRBench: reading ten kinds of text; an answer counts if it occurs in the response."""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TableRow, table_reader
from ..scorers.formats import SHORT
from ..stats.metrics import Metrics, mean_score
from . import Benchmark, Scorer

FORMULAS = "Handwritten Mathematical Expression Recognition"
RECOGNITION = "Text Recognition"
GROUPS = {
    "Regular Text Recognition": RECOGNITION,
    "Irregular Text Recognition": RECOGNITION,
    "Artistic Text Recognition": RECOGNITION,
    "Handwriting Recognition": RECOGNITION,
    "Digit String Recognition": RECOGNITION,
    "Non-Semantic Text Recognition": RECOGNITION,
    "Scene Text-centric VQA": "Scene Text-centric VQA",
    "Doc-oriented VQA": "Doc-oriented VQA",
    "Key Information Extraction": "Key Information Extraction",
    FORMULAS: FORMULAS,
}
"""Category of a row -> reported group."""
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
"""Full-width characters -> ASCII."""


def sample(row: TableRow) -> Sample:
    """Build the question of a row."""
    category, answers = row.choose("category", tuple(GROUPS)), row.answers()
    if any(not answer.strip() for answer in answers) and row.get("answer"):
        row.note("answer", "an answer is empty and would match everything", "Remove it")
    return row.sample(answers=answers, labels={"category": category})


def grade(
    question: Sample, response: str, options: Mapping[str, Any], *, fold: bool = False
) -> Grade:
    """Return 1 if one of the answers is part of the response.

    With `fold`, full-width characters become ASCII first except in formulas, as in lmms-eval.
    """
    is_formula = question.labels["category"] == FORMULAS

    def normalize(text: str) -> str:
        if is_formula:
            return text.strip().replace("\n", " ").replace(" ", "")
        text = text.translate(FULL_WIDTH) if fold else text
        return text.lower().strip().replace("\n", " ")

    text, *answers = map(normalize, (response, *question.answers))
    return Grade(float(any(answer in text for answer in answers)), text)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the number of correct rows (of 1,000), also by group, and the accuracy."""
    result = mean_score("accuracy", samples, by_label=False)
    for item in samples:
        name = f"score/{GROUPS[item.labels['category']]}"
        result.sums.add(item.cluster, name, item.score)
        result.formulas[name] = itemgetter(name)
    result.formulas["score"] = itemgetter("accuracy:score")
    result.formulas["score_norm"] = lambda totals: totals["accuracy:score"] / 10
    return result


BENCHMARK = Benchmark(
    name="ocrbench",
    title="OCRBench",
    read=table_reader(sample, "question", "answer", "category"),
    scorers={
        "vlmevalkit": Scorer(grade=grade, metrics=metrics, headline="score"),
        "lmms": Scorer(grade=partial(grade, fold=True), metrics=metrics, headline="score"),
    },
    expected={"rows": 1000},
    files=("OCRBench.tsv",),
    response_format=SHORT,
)
