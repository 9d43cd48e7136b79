"""AMBER, the discriminative part: existence, attributes and relations of objects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.dataset import Dataset, build_dataset
from ..data.json_files import JsonRow, read_records
from ..data.samples import Grade, GradedSample, Image, Sample
from ..data.tables import TableRow, read_table
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import yes_or_no
from ..stats.metrics import Array, Formula, Metrics, Totals, mean_of, mean_score
from . import Benchmark, Scorer
from ._yes_no import grade_yes_no

DIMENSIONS = {
    "discriminative-attribute-state": "Attribute",
    "discriminative-attribute-number": "Attribute",
    "discriminative-attribute-action": "Attribute",
    "discriminative-hallucination": "Existence",
    "discriminative-relation": "Relation",
    "relation": "Relation",
}
"""Type of a question -> the reported dimension."""
ANNOTATIONS = "annotations.json"
START, SMOOTHED = 0.001, 0.0001
"""Initial value of the official script's denominators, and the constant added to that of F1."""


def from_table(row: TableRow) -> Sample:
    """Build the question of a row of VLMEvalKit's table."""
    category = row.choose("category", tuple(DIMENSIONS))
    return row.sample(
        answers=(row.yes_or_no(),),
        labels={"dimension": DIMENSIONS.get(category, category), "type": category},
        cluster=row.get("image_path") or row.image_key,
    )


def read(path: Path, with_images: bool) -> Dataset:
    """Read a table, or the official directory of queries and annotations."""
    if path.suffix.lower() == ".tsv":
        columns = ("question", "answer", "category")
        return read_table(path, from_table, columns, with_images=with_images)
    folder = path if path.is_dir() else path.parent
    queries = sorted(folder.rglob("query_discriminative*.json")) if path.is_dir() else [path]
    queries = [file for file in queries if file.stem == "query_discriminative"] or queries
    places = [folder / ANNOTATIONS, folder.parent / ANNOTATIONS, *folder.rglob(ANNOTATIONS)]
    annotations = next((file for file in places if file.is_file()), None)
    if not queries or annotations is None:
        name = ANNOTATIONS if queries else "query_discriminative.json"
        raise DataError(Problem(str(path), f"no {name}", "Use the directory with both files"))
    problems: list[Problem] = []
    truths: dict[str, JsonRow] = {}
    for row in read_records([annotations], problems):
        first = truths.setdefault(row.text("id"), row)
        if first is not row:
            row.note("id", f"duplicate id, already used by {first.where}", "Keep one per id")
        problems += row.problems
    samples = []
    for row in read_records(queries, problems):
        samples.append(_from_query(row, truths))
        problems += row.problems
    return build_dataset(path, samples, files=[*queries, annotations], problems=problems)


def _from_query(row: JsonRow, truths: Mapping[str, JsonRow]) -> Sample:
    sample_id, image = row.text("id"), row.text("image")
    truth = truths.get(sample_id)
    if truth is None:
        row.note("id", f"no annotation has the id '{sample_id}'", "Add it to the annotations")
    category = truth.text("type") if truth else ""
    answer = truth.text("truth").capitalize() if truth else ""
    if truth and answer not in ("Yes", "No"):
        row.note("id", f"its annotation is '{answer[:60]}'", "Use yes or no")
    return Sample(
        id=sample_id,
        where=row.where,
        question=row.text("query"),
        answers=(answer,),
        labels={"dimension": DIMENSIONS.get(category, category), "type": category},
        cluster=image,
        images=(Image(image, image),),
    )


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the accuracy of each dimension, and their unweighted mean as the headline."""
    result = mean_score("accuracy", samples)
    dimensions = sorted({sample.labels["dimension"] for sample in samples})
    result.formulas["mean_accuracy"] = mean_of(
        [result.formulas[f"accuracy/dimension/{name}"] for name in dimensions]
    )
    return result


def grade_official(sample: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the first word, Yes or No, is correct."""
    words = response.replace(".", " ").replace(",", " ").split()
    answer = words[0] if words and words[0] in ("Yes", "No") else None
    return Grade(float(answer == sample.answers[0]), answer)


def metrics_official(samples: Sequence[GradedSample]) -> Metrics:
    """Return accuracy, and precision, recall and F1 of No, with the official constants."""
    result = Metrics()
    for sample in samples:
        dimension, kind = sample.labels["dimension"], sample.labels["type"].rpartition("-")[2]
        parts = ["", f"/dimension/{dimension}"]
        parts += [f"/type/{kind}"] if dimension == "Attribute" else []
        no, predicted_no = sample.answers[0] == "No", sample.answer == "No"
        for part in parts:
            result.sums.add(sample.cluster, f"n{part}")
            result.sums.add(sample.cluster, f"right{part}", sample.score)
            result.sums.add(sample.cluster, f"no{part}", no)
            result.sums.add(sample.cluster, f"predicted_no{part}", predicted_no)
            result.sums.add(sample.cluster, f"hit{part}", no and predicted_no)
            for name, formula in _formulas(part).items():
                result.formulas.setdefault(f"{name}{part}", formula)
    return result


def _formulas(part: str) -> dict[str, Formula]:
    def share(hits: str, total: str) -> Formula:
        return lambda totals: 100 * totals[f"{hits}{part}"] / (totals[f"{total}{part}"] + START)

    precision, recall = share("hit", "predicted_no"), share("hit", "no")

    def f1(totals: Totals) -> Array:
        p, r = precision(totals) / 100, recall(totals) / 100
        return 100 * 2 * p * r / (p + r + SMOOTHED)

    return {"accuracy": share("right", "n"), "precision": precision, "recall": recall, "f1": f1}


BENCHMARK = Benchmark(
    name="amber",
    title="AMBER, discriminative",
    read=read,
    scorers={
        "vlmevalkit": Scorer(
            grade=grade_yes_no(yes_or_no), metrics=metrics, headline="mean_accuracy"
        ),
        "clean": Scorer(
            grade=grade_yes_no(clean_yes_no), metrics=metrics, headline="mean_accuracy"
        ),
        "official": Scorer(grade=grade_official, metrics=metrics_official, headline="f1"),
    },
    expected={"rows": 14216},
    files=("AMBER.tsv", "query_discriminative.json"),
    layouts=("VLMEvalKit's .tsv", "the official directory with queries and annotations"),
    response_format=YES_NO,
)
