"""AMBER, the discriminative part: does it exist, what is it like, how do things relate?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.dataset import DataSet, data_set
from ..data.json_files import JsonRow, records_of
from ..data.samples import Judged, Picture, Sample, ScoredSample
from ..data.tables import TsvRow, read_tsv
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import yes_or_no
from ..stats.metrics import Array, Formula, Metrics, Totals, mean_metrics
from . import Benchmark, Rules
from ._yes_no import judge_yes_no

__all__ = ["BENCHMARK"]

DIMENSIONS = {
    "discriminative-attribute-state": "Attribute",
    "discriminative-attribute-number": "Attribute",
    "discriminative-attribute-action": "Attribute",
    "discriminative-hallucination": "Existence",
    "discriminative-relation": "Relation",
    "relation": "Relation",
}
"""Type of a question -> what is reported."""
ANNOTATIONS = "annotations.json"
START, SMOOTHED = 0.001, 0.0001
"""What the official script starts its denominators with, and adds to that of F1."""


def from_table(row: TsvRow) -> Sample:
    """Returns the question of a row of VLMEvalKit's table."""
    category = row.need("category")
    if category and category not in DIMENSIONS:
        row.note("category", f"found '{category[:60]}'", f"Give one of {', '.join(DIMENSIONS)}")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=(row.yes_or_no(),),
        labels={"dimension": DIMENSIONS.get(category, category), "type": category},
        cluster=row.get("image_path") or row.picture,
        pictures=row.pictures,
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table, or of the official folder: queries and annotations."""
    if path.suffix.lower() == ".tsv":
        needs = ("question", "answer", "category")
        return read_tsv(path, from_table, needs=needs, pictures=pictures)
    folder = path if path.is_dir() else path.parent
    queries = sorted(folder.rglob("query_discriminative*.json")) if path.is_dir() else [path]
    queries = [one for one in queries if one.stem == "query_discriminative"] or queries
    beside = [folder / ANNOTATIONS, folder.parent / ANNOTATIONS, *folder.rglob(ANNOTATIONS)]
    annotations = next((one for one in beside if one.is_file()), None)
    if not queries or annotations is None:
        what = ANNOTATIONS if queries else "query_discriminative.json"
        raise DataError(Problem(str(path), f"there is no {what}", "Name the folder with both"))
    problems: list[Problem] = []
    truths: dict[str, JsonRow] = {}
    for row in records_of([annotations], problems):
        before = truths.setdefault(row.text("id"), row)
        if before is not row:
            row.note("id", f"it is taken by {before.where}", "Keep one annotation for each id")
        problems += row.problems
    samples = []
    for row in records_of(queries, problems):
        samples.append(_from_query(row, truths))
        problems += row.problems
    return data_set(path, samples, files=[*queries, annotations], problems=problems)


def _from_query(row: JsonRow, truths: Mapping[str, JsonRow]) -> Sample:
    own, picture = row.text("id"), row.text("image")
    truth = truths.get(own)
    if truth is None:
        row.note("id", f"no annotation has the id '{own}'", "Add it to the annotations")
    category = truth.text("type") if truth else ""
    answer = truth.text("truth").capitalize() if truth else ""
    if truth and answer not in ("Yes", "No"):
        row.note("id", f"its annotation says '{answer[:60]}'", "Write yes or no")
    return Sample(
        id=own,
        where=row.where,
        question=row.text("query"),
        answers=(answer,),
        labels={"dimension": DIMENSIONS.get(category, category), "type": category},
        cluster=picture,
        pictures=(Picture(picture, picture),),
    )


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the accuracy of each dimension, and their unweighted mean as the headline."""
    found = mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in scored])
    dimensions = sorted({one.labels["dimension"] for one in scored})
    formulas = [found.formulas[f"accuracy/dimension/{name}"] for name in dimensions]

    def mean(totals: Totals) -> Array:
        return sum(formula(totals) for formula in formulas) / len(formulas)

    found.formulas["mean_accuracy"] = mean
    return found


def judge_official(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the first word, Yes or No, is right."""
    words = response.replace(".", " ").replace(",", " ").split()
    said = words[0] if words and words[0] in ("Yes", "No") else None
    return Judged(float(said == question.answers[0]), said)


def metrics_official(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns accuracy, and precision, recall and F1 of No, with the official small constants."""
    found = Metrics()
    for one in scored:
        dimension, kind = one.labels["dimension"], one.labels["type"].rpartition("-")[2]
        parts = ["", f"/dimension/{dimension}"]
        parts += [f"/type/{kind}"] if dimension == "Attribute" else []
        no, said_no = one.answers[0] == "No", one.answer == "No"
        for part in parts:
            found.sums.add(one.cluster, f"n{part}")
            found.sums.add(one.cluster, f"right{part}", one.score)
            found.sums.add(one.cluster, f"no{part}", no)
            found.sums.add(one.cluster, f"said_no{part}", said_no)
            found.sums.add(one.cluster, f"hit{part}", no and said_no)
            for name, formula in _formulas(part).items():
                found.formulas.setdefault(f"{name}{part}", formula)
    return found


def _formulas(part: str) -> dict[str, Formula]:
    def share(hits: str, whole: str) -> Formula:
        return lambda totals: 100 * totals[f"{hits}{part}"] / (totals[f"{whole}{part}"] + START)

    precision, recall = share("hit", "said_no"), share("hit", "no")

    def f1(totals: Totals) -> Array:
        p, r = precision(totals) / 100, recall(totals) / 100
        return 100 * 2 * p * r / (p + r + SMOOTHED)

    return {"accuracy": share("right", "n"), "precision": precision, "recall": recall, "f1": f1}


BENCHMARK = Benchmark(
    name="amber",
    title="AMBER, discriminative",
    read=read,
    families={
        "vlmevalkit": Rules(
            judge=judge_yes_no(yes_or_no), metrics=metrics, headline="mean_accuracy"
        ),
        "clean": Rules(judge=judge_yes_no(clean_yes_no), metrics=metrics, headline="mean_accuracy"),
        "official": Rules(judge=judge_official, metrics=metrics_official, headline="f1"),
    },
    expected={"rows": 14216},
    files=("AMBER.tsv", "query_discriminative.json"),
    layouts=("VLMEvalKit's .tsv", "the official folder with queries and annotations"),
    form=YES_NO,
)
