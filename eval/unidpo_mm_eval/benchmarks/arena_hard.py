"""Arena-Hard: hard instructions; its own command compares responses with those of a baseline."""

from pathlib import Path

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import Sample
from ._exported import exported_benchmark

IDS = ("question_id", "uid")


def sample(row: JsonRow) -> Sample:
    """Build the instruction of a record: its prompt, or the first of its turns."""
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


def read(path: Path, with_images: bool) -> Dataset:
    """Read the instructions of its file."""
    return read_json_files(path, sample, pattern="question.jsonl")


BENCHMARK = exported_benchmark(
    "arena_hard",
    "Arena-Hard",
    read,
    rows=500,
    file="question.jsonl",
    layout="its question.jsonl: question_id and turns, or uid and prompt",
)
