"""MMMU, validation: college questions with several pictures.

Open questions become options, A the answer and B "Other Answers", as in VLMEvalKit. The official
parser and lmms-eval's choose at random where they find nothing; that is never done here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.dataset import DataSet
from ..data.samples import Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..scorers.formats import LETTER
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules
from ._options import judge_clean, judge_option, option_sample

__all__ = ["BENCHMARK"]

OTHER = "Other Answers"
VALIDATION = "validation"


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row; an open one has its answer as option A."""
    if row.options():
        return option_sample(row)
    options = {"A": row.need("answer"), "B": OTHER}
    return replace(
        option_sample(replace(row, cells={**row.cells, **options, "answer": "A"})), options=options
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    return read_tsv(path, sample, needs=("question", "answer"), pictures=pictures)


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the accuracy on the validation rows where a table says which they are, and by label.

    A table without splits counts whole.
    """
    split = any(one.labels.get("split") == VALIDATION for one in scored)
    counted = [one for one in scored if not split or one.labels.get("split") == VALIDATION]
    found = mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in counted])
    others = [one for one in scored if split and one.labels.get("split") != VALIDATION]
    for name in sorted({one.labels.get("split", "none") for one in others}):
        rows = [one for one in others if one.labels.get("split", "none") == name]
        own = f"accuracy/split/{name}"
        mean_metrics(own, [(one.cluster, one.score, {}) for one in rows], metrics=found)
    return found


BENCHMARK = Benchmark(
    name="mmmu",
    title="MMMU validation",
    read=read,
    families={
        family: Rules(judge=judge, metrics=metrics, headline="accuracy")
        for family, judge in (("vlmevalkit", judge_option), ("clean", judge_clean))
    },
    expected={"rows": 900, "rows with dev": 1050},
    files=("MMMU_DEV_VAL.tsv",),
    layouts=(TABLE,),
    form=LETTER,
)
