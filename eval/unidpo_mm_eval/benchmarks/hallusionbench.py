"""HallusionBench: yes-or-no questions on figures and on their altered copies."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.dataset import DataSet
from ..data.json_files import JsonRow, read_lines
from ..data.samples import Picture, Sample, ScoredSample
from ..data.tables import TsvRow, read_tsv
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import yes_or_no
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules
from ._yes_no import judge_yes_no

__all__ = ["BENCHMARK"]

FIELDS = 6
"""Of an index: x_category_subcategory_set_figure_question."""
LABELS = ("category", "l2-category")


def from_table(row: TsvRow) -> Sample:
    """Returns the question of a row of VLMEvalKit's table."""
    fields = row.id.split("_")
    if len(fields) < FIELDS:
        remedy = "Write it as x_category_subcategory_set_figure_question"
        row.note("index", f"found '{row.id[:60]}'", remedy)
        fields = [*fields, *[""] * FIELDS]
    category, subcategory = row.get("category"), row.get("l2-category")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=(row.yes_or_no(),),
        labels=row.labels(*LABELS),
        cluster="/".join((category, subcategory, fields[3])),
        pictures=row.pictures,
        extras=dict(zip(("set", "figure", "question"), fields[3:6], strict=True)),
    )


def from_record(row: JsonRow) -> Sample:
    """Returns the question of an object of the official file."""
    names = ("category", "subcategory", "set_id", "figure_id", "question_id")
    category, subcategory, set_, figure, question = (row.text(name) for name in names)
    answer = row.text("gt_answer")
    if answer not in ("", "0", "1"):
        row.note("gt_answer", f"found '{answer[:60]}'", "Give 0 or 1")
    visual = row.text("visual_input", optional=True) or "0"
    shown = visual != "0"
    name = row.text("filename", optional=True) or f"{category}/{subcategory}/{set_}_{figure}"
    return Sample(
        id="_".join((visual, category, subcategory, set_, figure, question)),
        where=row.where,
        question=row.text("question"),
        answers=("Yes" if answer == "1" else "No",),
        labels={"category": category, "l2-category": subcategory},
        cluster=f"{category}/{subcategory}/{set_}",
        pictures=(Picture(name, name),) if shown else (),
        extras={"set": set_, "figure": figure, "question": question},
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table or of the official file."""
    if path.suffix.lower() == ".tsv":
        needs = ("question", "answer", *LABELS)
        return read_tsv(path, from_table, needs=needs, pictures=pictures)
    found = read_lines(path, from_record, pattern="*allusion*.json")
    without = [one.id for one in found.samples if not one.pictures]
    if not without:
        return found
    note = f"{len(without)} rows without picture are left out"
    kept = tuple(one for one in found.samples if one.pictures)
    return replace(found, samples=kept, dropped=tuple(without), notes=(*found.notes, note))


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns accuracy by question, by figure and by question over all figures; whole, by label.

    The keys of figures and questions hold no category, as in VLMEvalKit: a subcategory that both
    categories have is merged, but not inside of one category.
    """
    found = Metrics()
    parts: Mapping[str, list[ScoredSample]] = defaultdict(list)
    for one in scored:
        parts[""].append(one)
        for label in LABELS:
            if label in one.labels:
                parts[f"/{label}/{one.labels[label]}"].append(one)
    for part, members in parts.items():
        mean_metrics(
            f"aAcc{part}", [(one.cluster, one.score, {}) for one in members], metrics=found
        )
        for name, key in (("fAcc", "figure"), ("qAcc", "question")):
            mean_metrics(f"{name}{part}", _whole(members, key), metrics=found)
    return found


def _whole(scored: Sequence[ScoredSample], key: str) -> list[tuple[str, float, Mapping[str, str]]]:
    """Returns one row for each figure, or each question: 1 where all of it is right."""
    groups: Mapping[tuple[str, ...], list[ScoredSample]] = defaultdict(list)
    for one in scored:
        own = (one.labels.get("l2-category", ""), one.extras["set"], one.extras[key])
        groups[own].append(one)
    return [
        (members[0].cluster, min(one.score for one in members), {}) for members in groups.values()
    ]


BENCHMARK = Benchmark(
    name="hallusionbench",
    title="HallusionBench",
    read=read,
    families={
        family: Rules(judge=judge_yes_no(extract), metrics=metrics, headline="aAcc")
        for family, extract in (("vlmevalkit", yes_or_no), ("clean", clean_yes_no))
    },
    expected={"rows": 951},
    files=("HallusionBench.tsv", "HallusionBench.json"),
    layouts=("VLMEvalKit's .tsv", "the official HallusionBench.json"),
    form=YES_NO,
)
