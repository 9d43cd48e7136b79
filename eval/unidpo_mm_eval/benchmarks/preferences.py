"""Held-out pairs in any layout that the trainer reads."""

from ._pair_sets import training_pairs
from ._pairs import pair_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = pair_benchmark(
    "preferences",
    "Held-out pairs",
    training_pairs,
    rows=None,
    files=("heldout_pairs.jsonl", "pairs.jsonl"),
    layout="any layout of preference data that the trainer reads",
)
