"""MMMU, validation: college questions with several images.

Open questions become options, A the answer and B "Other Answers", as in VLMEvalKit. The official
parser and lmms-eval's choose at random if they find nothing; that is never done here.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..data.samples import GradedSample, Sample
from ..data.tables import TableRow, table_reader
from ..scorers.formats import LETTER
from ..stats.metrics import Metrics, mean_score
from . import Benchmark
from ._options import option_sample, option_scorers

OTHER = "Other Answers"
VALIDATION = "validation"


def sample(row: TableRow) -> Sample:
    """Build the question of a row; the answer of an open question becomes option A."""
    if row.options():
        return option_sample(row)
    options = {"A": row.need("answer"), "B": OTHER}
    row = replace(row, cells={**row.cells, **options, "answer": "A"})
    return replace(option_sample(row), options=options)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the accuracy on the validation split, and by label; without splits, on all rows."""
    splits: dict[str, list[GradedSample]] = {}
    for item in samples:
        splits.setdefault(item.labels.get("split", "none"), []).append(item)
    result = mean_score("accuracy", splits.get(VALIDATION, samples))
    if VALIDATION in splits:
        for name in sorted(splits.keys() - {VALIDATION}):
            mean_score(f"accuracy/split/{name}", splits[name], by_label=False, metrics=result)
    return result


BENCHMARK = Benchmark(
    name="mmmu",
    title="MMMU validation",
    read=table_reader(sample, "question", "answer"),
    scorers=option_scorers(metrics=metrics),
    expected={"rows": 900, "rows with dev": 1050},
    files=("MMMU_DEV_VAL.tsv",),
    response_format=LETTER,
)
