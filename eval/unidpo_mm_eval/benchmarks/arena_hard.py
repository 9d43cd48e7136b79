"""Arena-Hard: hard instructions; its own command compares answers with those of a baseline."""

from pathlib import Path

from ..data.dataset import DataSet
from ..data.json_files import JsonRow, read_lines
from ..data.samples import Sample
from ._exported import exported_benchmark

__all__ = ["BENCHMARK"]

IDS = ("question_id", "uid")


def sample(row: JsonRow) -> Sample:
    """Returns the instruction of a record: a prompt, or the first of its turns."""
    turns = row.record.get("turns")
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        question = str(turns[0].get("content", ""))
    else:
        question = row.text("prompt")
    name = next((name for name in IDS if row.record.get(name) is not None), IDS[0])
    return Sample(
        id=row.text(name),
        where=row.where,
        question=question,
        labels={"cluster": row.text("cluster", optional=True)},
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the instructions of its file."""
    return read_lines(path, sample, pattern="question.jsonl")


BENCHMARK = exported_benchmark(
    "arena_hard",
    "Arena-Hard",
    read,
    rows=500,
    files=("question.jsonl",),
    layout="its question.jsonl: question_id and turns, or uid and prompt",
)
