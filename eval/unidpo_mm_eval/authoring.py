"""Public names for authors of benchmarks and scorers; see docs/benchmarks.md for examples."""

from .benchmarks import Benchmark, GradeFunction, Scorer
from .data.dataset import Dataset, build_dataset
from .data.samples import Grade, GradedSample, Image, Prediction, Sample, Video
from .data.tables import TableRow, read_table, table_reader
from .scorers.formats import BOX, LETTER, SHORT, YES_NO, ResponseFormat
from .stats.metrics import Metrics, Sums, mean_score, ratio, share

__all__ = [
    "BOX",
    "LETTER",
    "SHORT",
    "YES_NO",
    "Benchmark",
    "Dataset",
    "Grade",
    "GradeFunction",
    "GradedSample",
    "Image",
    "Metrics",
    "Prediction",
    "ResponseFormat",
    "Sample",
    "Scorer",
    "Sums",
    "TableRow",
    "Video",
    "build_dataset",
    "mean_score",
    "ratio",
    "read_table",
    "share",
    "table_reader",
]
