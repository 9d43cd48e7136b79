"""OCRBench: reading text of ten kinds; an answer counts where it stands inside of the response."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..scorers.formats import SHORT
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules

__all__ = ["BENCHMARK"]

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
"""Category of a row -> group that is reported."""
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
"""Full-width ASCII -> ASCII."""


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row."""
    category, answers = row.need("category"), row.answers()
    if category and category not in GROUPS:
        row.note("category", f"found '{category[:60]}'", f"Give one of {', '.join(GROUPS)}")
    if any(not answer.strip() for answer in answers) and row.get("answer"):
        row.note("answer", "an answer is empty, it would match everything", "Remove it")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=answers,
        labels={"category": category},
        cluster=row.picture,
        pictures=row.pictures,
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    return read_tsv(path, sample, needs=("question", "answer", "category"), pictures=pictures)


def judge(
    question: Sample, response: str, protocol: Mapping[str, Any], *, fold: bool = False
) -> Judged:
    """Returns 1 where one of the answers is a part of the response.

    Args:
        question: The question.
        response: What the model said.
        protocol: Not used.
        fold: Full-width characters become plain ones first, but not in formulas, as in lmms-eval.
    """
    plain = _formula if question.labels["category"] == FORMULAS else _folded if fold else _text
    said, *answers = map(plain, (response, *question.answers))
    return Judged(float(any(answer in said for answer in answers)), said)


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns how many rows are right, of 1,000, and by group; and the share of them."""
    found = mean_metrics("accuracy", [(one.cluster, one.score, {}) for one in scored])
    for one in scored:
        group = GROUPS[one.labels["category"]]
        found.sums.add(one.cluster, f"score/{group}", one.score)
        found.formulas[f"score/{group}"] = _sum_of(f"score/{group}")
    found.formulas["score"] = _sum_of("accuracy:score")
    found.formulas["score_norm"] = lambda totals: totals["accuracy:score"] / 10
    return found


def _sum_of(name: str) -> Any:
    return lambda totals: totals[name]


def _text(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _folded(text: str) -> str:
    return _text(text.translate(FULL_WIDTH))


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


BENCHMARK = Benchmark(
    name="ocrbench",
    title="OCRBench",
    read=read,
    families={
        "vlmevalkit": Rules(judge=judge, metrics=metrics, headline="score"),
        "lmms": Rules(judge=partial(judge, fold=True), metrics=metrics, headline="score"),
    },
    expected={"rows": 1000},
    files=("OCRBench.tsv",),
    layouts=(TABLE,),
    form=SHORT,
)
