"""MMBench DEV, English and Chinese: a question counts where all its circular copies are right."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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

CIRCULAR, PLAIN = "accuracy", "vanilla_accuracy_base"
COPIES = 1_000_000
"""A copy's index is that of its question plus a multiple of this."""


def sample(row: TsvRow) -> Sample:
    """Returns the question of a row, of one unit and one cluster with its copies."""
    made = option_sample(row)
    if not row.id.isdecimal():
        row.note("index", f"found '{row.id[:60]}'", "Give a whole number")
        return made
    question = str(int(row.id) % COPIES)
    return replace(made, unit=question, cluster=question)


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table and their copies; copies without question are told."""
    found = read_tsv(path, sample, needs=("question", "A", "answer"), pictures=pictures)
    questions = {one.unit for one in found.samples if _is_question(one.id)}
    notes = list(found.notes)
    alone = [one for one in found.samples if one.unit not in questions]
    if alone:
        first = f"{alone[0].where} is a copy of row {alone[0].unit}, which is not there"
        note = f"copies without their question, which count for no circular accuracy: {len(alone)}"
        notes.append(f"{note}; {first}")
    copies = Counter(one.unit for one in found.samples)
    asked = [one for one in found.samples if _is_question(one.id)]
    short = [one for one in asked if copies[one.unit] < len(one.options)]
    if short:
        first = f"{short[0].where} has {copies[short[0].unit]} for {len(short[0].options)} options"
        effect = "they are wrong in the circular accuracy"
        if len(short) == len(asked):
            effect = f"there is no circular accuracy, and the headline is {PLAIN}"
        text = f"questions without one copy for each option: {len(short)}; {effect}; {first}"
        notes.append(text)
    return replace(found, notes=tuple(notes))


def circular(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Return question -> 1 if it and all its circular copies are right.

    A question without a copy for each of its options is wrong. If no question has its copies, the
    data cannot give a circular accuracy, and each question stands for itself.
    """
    scores: Mapping[str, list[float]] = defaultdict(list)
    for sample in scored:
        scores[sample.unit].append(sample.score)
    questions = [sample for sample in scored if _is_question(sample.id)]
    if not _has_copies(scored):
        return {sample.unit: sample.score for sample in questions}
    return {
        sample.unit: min(scores[sample.unit])
        if len(scores[sample.unit]) >= len(sample.options)
        else 0.0
        for sample in questions
    }


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Return the circular accuracy over questions and by label, and both plain accuracies.

    Data without copies have plain accuracies only.
    """
    right = circular(scored)
    questions = [sample for sample in scored if _is_question(sample.id)]
    rows = [(sample.cluster, right[sample.unit], sample.labels) for sample in questions]
    measured = mean_metrics(headline(scored), rows)
    plain = [("all", scored), ("base", questions)]
    for name, members in plain if _has_copies(scored) else plain[:1]:
        rows = [(sample.cluster, sample.score, {}) for sample in members]
        mean_metrics(f"vanilla_accuracy_{name}", rows, metrics=measured)
    return measured


def headline(scored: Sequence[ScoredSample]) -> str:
    """Return the circular accuracy, or the plain one of data without copies."""
    return CIRCULAR if _has_copies(scored) else PLAIN


def _has_copies(scored: Sequence[ScoredSample]) -> bool:
    """Return whether at least one question has a copy for each of its options."""
    copies = Counter(sample.unit for sample in scored)
    return any(
        copies[sample.unit] >= max(len(sample.options), 2)
        for sample in scored
        if _is_question(sample.id)
    )


def _is_question(own: str) -> bool:
    return int(own) < COPIES


BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench DEV",
    read=read,
    families={
        family: Rules(
            judge=judge,
            metrics=metrics,
            headline=CIRCULAR,
            headline_of=headline,
            unit_scores=circular,
        )
        for family, judge in (("vlmevalkit", judge_option), ("clean", judge_clean))
    },
    expected={"rows": 4329, "questions": 1164},
    files=("MMBench_DEV_EN.tsv", "MMBench_DEV_CN.tsv"),
    layouts=(TABLE,),
    form=LETTER,
)
