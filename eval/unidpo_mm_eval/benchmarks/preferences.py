"""Held-out pairs in any format that the trainer reads."""

from ._pairs import pair_benchmark, training_pairs

BENCHMARK = pair_benchmark(
    "preferences",
    "Held-out pairs",
    training_pairs,
    files=("heldout_pairs.jsonl", "pairs.jsonl"),
    layout="any format of preference data that the trainer reads",
)
