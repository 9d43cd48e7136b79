"""AlpacaEval: instructions; its own command compares answers with those of a baseline."""

from pathlib import Path

from ..data.dataset import DataSet
from ..data.json_files import JsonRow, read_lines
from ..data.samples import Sample
from ._exported import exported_benchmark

__all__ = ["BENCHMARK"]


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the instructions; their ids are their numbers, as in the export."""
    numbers = iter(range(1 << 62))

    def sample(row: JsonRow) -> Sample:
        return Sample(
            id=str(next(numbers)),
            where=row.where,
            question=row.text("instruction"),
            labels={"dataset": row.text("dataset", optional=True)},
        )

    return read_lines(path, sample, pattern="alpaca_eval.json")


BENCHMARK = exported_benchmark(
    "alpaca_eval",
    "AlpacaEval",
    read,
    rows=805,
    files=("alpaca_eval.json",),
    layout="its alpaca_eval.json: instruction, dataset",
)
