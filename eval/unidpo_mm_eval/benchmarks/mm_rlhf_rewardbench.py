"""MM-RLHF-RewardBench: pairs about images; Acc+ counts ids whose pairs are all correct."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.json_files import JsonRow
from ._pairs import pair_benchmark, reward_pairs

GROUPS = ("mcq", "long", "short", "safety", "video")
"""Part of the path of the image."""


def pair(row: JsonRow) -> Mapping[str, Any] | None:
    """Build the pair of a record; `None` for a video, which this benchmark skips."""
    path = row.text("image", optional=True) or row.text("video", optional=True)
    if not path:
        row.note("image", "missing", "Add the path of the image")
    texts = {name: row.text(name) for name in ("prompt", "chosen", "rejected")}
    if row.record.get("video") and not row.record.get("image"):
        return None
    group = next((name for name in GROUPS if name in path.lower()), "other")
    return {**texts, "images": [path], "group": group, "unit": row.text("id")}


BENCHMARK = pair_benchmark(
    "mm_rlhf_rewardbench",
    "MM-RLHF-RewardBench",
    partial(reward_pairs, read=pair, skip_reason="they have a video"),
    files=("mm_reward_bench*.jsonl",),
    layout="its .jsonl: id, image, prompt, chosen, rejected",
)
