"""AlpacaEval: instructions; its own command compares responses with those of a baseline."""

from itertools import count
from pathlib import Path

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import Sample
from ._exported import exported_benchmark


def read(path: Path, with_images: bool) -> Dataset:
    """Read the instructions; their ids are row numbers, as in the export."""
    numbers = count()

    def sample(row: JsonRow) -> Sample:
        return Sample(
            id=str(next(numbers)),
            where=row.where,
            question=row.text("instruction"),
            labels={"dataset": row.text("dataset", optional=True)},
        )

    return read_json_files(path, sample, pattern="alpaca_eval.json")


BENCHMARK = exported_benchmark(
    "alpaca_eval",
    "AlpacaEval",
    read,
    rows=805,
    file="alpaca_eval.json",
    layout="its alpaca_eval.json: instruction, dataset",
)
