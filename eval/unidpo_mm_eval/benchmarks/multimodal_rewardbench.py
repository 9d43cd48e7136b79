"""Multimodal RewardBench: two outputs to a text with a picture, one of them better."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.json_files import JsonRow
from ._pair_sets import PairSet, reward_pairs
from ._pairs import pair_benchmark

__all__ = ["BENCHMARK"]

OUTPUTS = ("Output1", "Output2")


def pair(row: JsonRow) -> Mapping[str, Any]:
    """Returns the pair of a record."""
    outputs, better = [row.text(name) for name in OUTPUTS], row.text("Better")
    if better and better not in OUTPUTS:
        row.note("Better", f"found '{better[:60]}'", f"Give {' or '.join(OUTPUTS)}")
    image = row.record.get("Image")
    if not image:
        row.note("Image", "it is not there", "Give the picture or its path")
    first = better == OUTPUTS[0]
    return {
        "prompt": row.text("Text"),
        "chosen": outputs[0 if first else 1],
        "rejected": outputs[1 if first else 0],
        "images": [image],
        "group": row.text("Category"),
    }


def pairs(path: Path, images: Path | None) -> PairSet:
    """Returns the pairs of the file."""
    return reward_pairs(path, images, pair)


BENCHMARK = pair_benchmark(
    "multimodal_rewardbench",
    "Multimodal RewardBench",
    pairs,
    rows=5211,
    files=("multimodal_rewardbench*.json*", "all_data.json"),
    layout="its .json or .jsonl: Text, Output1, Output2, Better, Category, Image",
)
