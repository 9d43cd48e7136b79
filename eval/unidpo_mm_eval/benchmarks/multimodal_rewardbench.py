"""Multimodal RewardBench: two outputs for a text with an image, one of them better."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.json_files import JsonRow
from ._pairs import pair_benchmark, reward_pairs

OUTPUTS = ("Output1", "Output2")


def pair(row: JsonRow) -> Mapping[str, Any]:
    """Build the pair of a record."""
    outputs, better = [row.text(name) for name in OUTPUTS], row.text("Better")
    if better and better not in OUTPUTS:
        row.note("Better", f"got '{better[:60]}'", f"Use {' or '.join(OUTPUTS)}")
    image = row.record.get("Image")
    if not image:
        row.note("Image", "missing", "Add the image or its path")
    first = better == OUTPUTS[0]
    return {
        "prompt": row.text("Text"),
        "chosen": outputs[0 if first else 1],
        "rejected": outputs[1 if first else 0],
        "images": [image],
        "group": row.text("Category"),
    }


BENCHMARK = pair_benchmark(
    "multimodal_rewardbench",
    "Multimodal RewardBench",
    partial(reward_pairs, read=pair),
    rows=5211,
    files=("multimodal_rewardbench*.json*", "all_data.json"),
    layout="its .json or .jsonl: Text, Output1, Output2, Better, Category, Image",
)
