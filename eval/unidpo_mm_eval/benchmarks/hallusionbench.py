"""HallusionBench: yes-or-no questions about figures and their altered copies."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import GradedSample, Image, Sample
from ..data.tables import TableRow, read_table
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import yes_or_no
from ..stats.metrics import MetricRow, Metrics, mean_metrics, mean_score
from . import Benchmark, Scorer
from ._yes_no import grade_yes_no

FIELDS = 6
"""Number of fields of an index: x_category_subcategory_set_figure_question."""
LABELS = ("category", "l2-category")


def from_table(row: TableRow) -> Sample:
    """Build the question of a row of VLMEvalKit's table."""
    fields = row.id.split("_")
    if len(fields) < FIELDS:
        remedy = "Use x_category_subcategory_set_figure_question"
        row.note("index", f"got '{row.id[:60]}'", remedy)
        fields = [*fields, *[""] * FIELDS]
    return row.sample(
        answers=(row.yes_or_no(),),
        labels=row.labels(*LABELS),
        cluster="/".join((*map(row.get, LABELS), fields[3])),
        extras=dict(zip(("set", "figure", "question"), fields[3:6], strict=True)),
    )


def from_record(row: JsonRow) -> Sample:
    """Build the question of an object of the official file."""
    names = ("category", "subcategory", "set_id", "figure_id", "question_id")
    category, subcategory, set_, figure, question = (row.text(name) for name in names)
    answer = row.text("gt_answer")
    if answer not in ("", "0", "1"):
        row.note("gt_answer", f"got '{answer[:60]}'", "Use 0 or 1")
    visual = row.text("visual_input", optional=True) or "0"
    name = row.text("filename", optional=True) or f"{category}/{subcategory}/{set_}_{figure}"
    return Sample(
        id="_".join((visual, category, subcategory, set_, figure, question)),
        where=row.where,
        question=row.text("question"),
        answers=("Yes" if answer == "1" else "No",),
        labels={"category": category, "l2-category": subcategory},
        cluster=f"{category}/{subcategory}/{set_}",
        images=(Image(name, name),) if visual != "0" else (),
        extras={"set": set_, "figure": figure, "question": question},
    )


def read(path: Path, with_images: bool) -> Dataset:
    """Read a table or the official file."""
    if path.suffix.lower() == ".tsv":
        columns = ("question", "answer", *LABELS)
        return read_table(path, from_table, columns, with_images=with_images)
    data = read_json_files(path, from_record, pattern="*allusion*.json")
    without = tuple(sample.id for sample in data.samples if not sample.images)
    if not without:
        return data
    note = f"skipped {len(without)} rows without an image"
    samples = tuple(sample for sample in data.samples if sample.images)
    return replace(data, samples=samples, dropped=without, notes=(*data.notes, note))


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the accuracy per question, per figure and per question over all figures; by label.

    As in VLMEvalKit, the keys of figures and questions do not contain the category: a subcategory
    that occurs in both categories is merged, except in the metrics of one category.
    """
    result = Metrics()
    parts: Mapping[str, list[GradedSample]] = defaultdict(list)
    for sample in samples:
        parts[""].append(sample)
        for label in LABELS:
            if label in sample.labels:
                parts[f"/{label}/{sample.labels[label]}"].append(sample)
    for part, members in parts.items():
        mean_score(f"aAcc{part}", members, by_label=False, metrics=result)
        for name, key in (("fAcc", "figure"), ("qAcc", "question")):
            mean_metrics(f"{name}{part}", _all_correct(members, key), metrics=result)
    return result


def _all_correct(samples: Sequence[GradedSample], key: str) -> list[MetricRow]:
    """Return a row per figure, or per question: 1 if all its samples are correct."""
    groups: Mapping[tuple[str, ...], list[GradedSample]] = defaultdict(list)
    for sample in samples:
        group = (sample.labels.get("l2-category", ""), sample.extras["set"], sample.extras[key])
        groups[group].append(sample)
    return [(members[0].cluster, min(s.score for s in members), {}) for members in groups.values()]


BENCHMARK = Benchmark(
    name="hallusionbench",
    title="HallusionBench",
    read=read,
    scorers={
        name: Scorer(grade=grade_yes_no(extract), metrics=metrics, headline="aAcc")
        for name, extract in (("vlmevalkit", yes_or_no), ("clean", clean_yes_no))
    },
    expected={"rows": 951},
    files=("HallusionBench.tsv", "HallusionBench.json"),
    layouts=("VLMEvalKit's .tsv", "the official HallusionBench.json"),
    response_format=YES_NO,
)
