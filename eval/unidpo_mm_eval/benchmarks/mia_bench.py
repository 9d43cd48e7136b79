"""MIA-Bench: instructions with several parts; a judge rates how well each is followed."""

import json
from collections.abc import Sequence

from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TableRow, list_cell, table_reader
from ..judge.verdicts import fractions
from ..protocols import judge_prompt
from ..stats.metrics import Metrics, mean_score
from . import Benchmark
from ._judged import judge_scorer


def sample(row: TableRow) -> Sample:
    """Build the instruction of a row, with its parts and their weights."""
    parts, weights = list_cell(row.need("components")), list_cell(row.need("component_weight"))
    if not parts or not weights or len(parts) != len(weights) or not all(map(_is_weight, weights)):
        text = f"got {row.get('components')[:60]!r} and {row.get('component_weight')[:60]!r}"
        row.note("component_weight", text, "Use two lists of the same length, points above 0")
        parts, weights = [], []
    types = list_cell(row.get("type")) or [row.get("type")]
    return row.sample(
        question=row.get("question") or row.need("instruction"),
        extras={
            "components": json.dumps(parts),
            "weights": json.dumps([float(weight) for weight in weights]),
            "types": json.dumps([name for name in types if name]),
        },
    )


def prompt(question: Sample, response: str, number: int) -> str:
    """Return the prompt for the judge."""
    pairs = zip(json.loads(question.extras["components"]), _weights(question), strict=True)
    parts = [f"{n}. {text} (worth {weight:g})" for n, (text, weight) in enumerate(pairs, start=1)]
    return judge_prompt("mia_bench").format(
        question=question.question, response=response, components="\n".join(parts)
    )


def grade(question: Sample, verdicts: Sequence[Sequence[float]]) -> Grade:
    """Return the share of all points."""
    points = verdicts[0]
    return Grade(sum(points) / sum(_weights(question)), " ".join(f"{n:g}" for n in points))


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the mean share of points, also by type; a sample without verdict has none."""
    result = mean_score("score", samples, by_label=False)
    types = {item.id: json.loads(item.extras["types"]) for item in samples}
    for name in sorted({name for names in types.values() for name in names}):
        members = [item for item in samples if name in types[item.id]]
        mean_score(f"score/type/{name}", members, by_label=False, metrics=result)
    return result


def _weights(question: Sample) -> list[float]:
    weights: list[float] = json.loads(question.extras["weights"])
    return weights


def _is_weight(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and float(text) > 0


BENCHMARK = Benchmark(
    name="mia_bench",
    title="MIA-Bench",
    read=table_reader(sample, "components", "component_weight"),
    scorers={
        "judge": judge_scorer(
            prompt=prompt,
            read=lambda question, reply: fractions(reply, "component", _weights(question)),
            grade=grade,
            metrics=metrics,
            headline="score",
            with_images=True,
        )
    },
    expected={"rows": 400},
    files=("MIA-Bench.tsv",),
)
