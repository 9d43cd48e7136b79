"""MMBench DEV, English and Chinese: a question counts if all its circular copies are correct."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.dataset import Dataset
from ..data.samples import GradedSample, Sample
from ..data.tables import TableRow, read_table
from ..scorers.formats import LETTER
from ..stats.metrics import Metrics, mean_metrics, mean_score
from . import Benchmark
from ._options import option_sample, option_scorers

CIRCULAR, PLAIN = "accuracy", "vanilla_accuracy_base"
COPIES = 1_000_000
"""The index of a copy is that of its question plus a multiple of this."""


def sample(row: TableRow) -> Sample:
    """Build the question of a row; its circular copies share its unit and cluster."""
    question = option_sample(row)
    if not row.id.isdecimal():
        row.note("index", f"got '{row.id[:60]}'", "Use an integer")
        return question
    unit = str(int(row.id) % COPIES)
    return replace(question, unit=unit, cluster=unit)


def read(path: Path, with_images: bool) -> Dataset:
    """Read the questions of a table and their copies; report incomplete sets of copies."""
    data = read_table(path, sample, ("question", "A", "answer"), with_images=with_images)
    questions = [s for s in data.samples if _is_question(s.id)]
    units, copies = {s.unit for s in questions}, Counter(s.unit for s in data.samples)
    notes = list(data.notes)
    orphans = [s for s in data.samples if s.unit not in units]
    if orphans:
        first = f"{orphans[0].where} is a copy of row {orphans[0].unit}, which does not exist"
        note = f"copies without their question, excluded from circular accuracy: {len(orphans)}"
        notes.append(f"{note}; {first}")
    short = [s for s in questions if copies[s.unit] < len(s.options)]
    if short:
        first = f"{short[0].where} has {copies[short[0].unit]} for {len(short[0].options)} options"
        effect = "they count as wrong in the circular accuracy"
        if len(short) == len(questions):
            effect = f"there is no circular accuracy, and the headline is {PLAIN}"
        notes.append(f"questions without a copy per option: {len(short)}; {effect}; {first}")
    return replace(data, notes=tuple(notes))


def circular(samples: Sequence[GradedSample]) -> dict[str, float]:
    """Return question -> 1 if it and all its circular copies are correct.

    A question without a copy for each of its options is wrong. If no question has its copies,
    there is no circular accuracy, and each question counts individually.
    """
    scores: Mapping[str, list[float]] = defaultdict(list)
    for item in samples:
        scores[item.unit].append(item.score)
    questions = [item for item in samples if _is_question(item.id)]
    if not _has_copies(samples):
        return {item.unit: item.score for item in questions}
    return {
        item.unit: min(scores[item.unit]) if len(scores[item.unit]) >= len(item.options) else 0.0
        for item in questions
    }


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the circular accuracy over questions and by label, and both plain accuracies.

    Data without copies have plain accuracies only.
    """
    correct = circular(samples)
    questions = [item for item in samples if _is_question(item.id)]
    rows = [(item.cluster, correct[item.unit], item.labels) for item in questions]
    result = mean_metrics(headline(samples), rows)
    plain = [("all", samples), ("base", questions)]
    for name, members in plain if _has_copies(samples) else plain[:1]:
        mean_score(f"vanilla_accuracy_{name}", members, by_label=False, metrics=result)
    return result


def headline(samples: Sequence[GradedSample]) -> str:
    """Return the name of the circular accuracy, or of the plain one for data without copies."""
    return CIRCULAR if _has_copies(samples) else PLAIN


def _has_copies(samples: Sequence[GradedSample]) -> bool:
    """Return whether at least one question has a copy for each of its options."""
    copies = Counter(item.unit for item in samples)
    questions = (item for item in samples if _is_question(item.id))
    return any(copies[item.unit] >= max(len(item.options), 2) for item in questions)


def _is_question(sample_id: str) -> bool:
    return int(sample_id) < COPIES


BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench DEV",
    read=read,
    scorers=option_scorers(metrics=metrics, headline_of=headline, unit_scores=circular),
    expected={"rows": 4329, "questions": 1164},
    files=("MMBench_DEV_EN.tsv", "MMBench_DEV_CN.tsv"),
    response_format=LETTER,
)
