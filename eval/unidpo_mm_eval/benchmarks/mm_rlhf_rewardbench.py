"""MM-RLHF-RewardBench: pairs on pictures, several to an id, which count together as Acc+."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.json_files import JsonRow
from ._pair_sets import PairSet, reward_pairs
from ._pairs import pair_benchmark

__all__ = ["BENCHMARK"]

GROUPS = ("mcq", "long", "short", "safety", "video")
"""Told by the path of the picture."""


def pair(row: JsonRow) -> Mapping[str, Any] | None:
    """Returns the pair of a record; None for one with a video, which no adapter takes."""
    path = row.text("image", optional=True) or row.text("video", optional=True)
    if not path:
        row.note("image", "it is not there", "Give the path of the picture")
    made = {name: row.text(name) for name in ("prompt", "chosen", "rejected")}
    if row.record.get("video") and not row.record.get("image"):
        return None
    group = next((name for name in GROUPS if name in path.lower()), "other")
    return {**made, "images": [path], "group": group, "unit": row.text("id")}


def pairs(path: Path, images: Path | None) -> PairSet:
    """Returns the pairs of the file."""
    return reward_pairs(path, images, pair, left_out="they have a video")


BENCHMARK = pair_benchmark(
    "mm_rlhf_rewardbench",
    "MM-RLHF-RewardBench",
    pairs,
    rows=None,
    files=("mm_reward_bench*.jsonl",),
    layout="its .jsonl: id, image, prompt, chosen, rejected",
)
