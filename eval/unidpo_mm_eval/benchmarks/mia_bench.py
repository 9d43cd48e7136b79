"""MIA-Bench: instructions of several parts; a judge says how well each is followed."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, list_cell, read_tsv
from ..judge.judges import question_to
from ..judge.verdicts import fractions
from ..models.chat import Message
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark
from ._judged import judge_rules, pictures_of

__all__ = ["BENCHMARK"]

ASKED = """An assistant was given an instruction about this picture.

Instruction: {question}

Its answer: {response}

The instruction has these parts, each with the points it is worth:
{components}

Judge how well the answer follows each part. End with one line for each part, as in
component 1: points/worth"""


def sample(row: TsvRow) -> Sample:
    """Returns the instruction of a row, with its parts and what they are worth."""
    parts, weights = list_cell(row.need("components")), list_cell(row.need("component_weight"))
    if not parts or not weights or len(parts) != len(weights) or not all(map(_is_worth, weights)):
        found = f"found {row.get('components')[:60]!r} and {row.get('component_weight')[:60]!r}"
        row.note("component_weight", found, "Give two lists of one length, points above 0")
        parts, weights = [], []
    types = list_cell(row.get("type")) or [row.get("type")]
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question") or row.need("instruction"),
        cluster=row.picture,
        pictures=row.pictures,
        extras={
            "components": json.dumps(parts),
            "weights": json.dumps([float(weight) for weight in weights]),
            "types": json.dumps([one for one in types if one]),
        },
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the instructions of a table."""
    return read_tsv(path, sample, needs=("components", "component_weight"), pictures=pictures)


def ask(question: Sample, response: str, turn: int) -> Sequence[Message]:
    """Returns what the judge is asked."""
    pairs = zip(json.loads(question.extras["components"]), _weights(question), strict=True)
    parts = [f"{n}. {text} (worth {weight:g})" for n, (text, weight) in enumerate(pairs, start=1)]
    shown = pictures_of(question)
    text = ASKED.format(question=question.question, response=response, components="\n".join(parts))
    return question_to(text, shown)


def settle(question: Sample, verdicts: Sequence[Sequence[float]]) -> Judged:
    """Returns the share of all points."""
    points = verdicts[0]
    return Judged(sum(points) / sum(_weights(question)), " ".join(f"{one:g}" for one in points))


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the mean share of points, whole and by type; what was not judged has none."""
    found = mean_metrics("score", [(one.cluster, one.score, {}) for one in scored])
    for kind in sorted({kind for one in scored for kind in _types(one)}):
        having = [one for one in scored if kind in _types(one)]
        mean_metrics(
            f"score/type/{kind}", [(one.cluster, one.score, {}) for one in having], metrics=found
        )
    return found


def _types(one: ScoredSample) -> list[str]:
    found: list[str] = json.loads(one.extras["types"])
    return found


def _weights(question: Sample) -> list[float]:
    found: list[float] = json.loads(question.extras["weights"])
    return found


def _is_worth(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and float(text) > 0


BENCHMARK = Benchmark(
    name="mia_bench",
    title="MIA-Bench",
    read=read,
    families={
        "judge": judge_rules(
            ask=ask,
            read=lambda question: lambda text: fractions(text, "component", _weights(question)),
            settle=settle,
            metrics=metrics,
            headline="score",
        )
    },
    expected={"rows": 400},
    files=("MIA-Bench.tsv",),
    layouts=(TABLE,),
)
