"""VL-RewardBench: general questions, hallucination, reasoning; accuracy by group and their mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.json_files import JsonRow
from ._pair_sets import PairSet, reward_pairs
from ._pairs import pair_benchmark

__all__ = ["BENCHMARK"]

GROUPS = {
    "reasoning": ("mathverse", "mmmu", "math"),
    "hallucination": ("rlaif", "rlhf", "povid", "hallu"),
}
"""Group -> what the source of its questions is called; all others are general."""


def pair(row: JsonRow) -> Mapping[str, Any]:
    """Returns the pair of a record: the response with the lower rank is the better one."""
    query, answers, ranks = row.text("query"), row.record.get("response"), row.record.get(RANKS)
    if not (isinstance(answers, list) and len(answers) == 2):
        row.note("response", f"found {str(answers)[:60]!r}", "Give a list of two answers")
    if not (isinstance(ranks, list) and sorted(map(str, ranks)) == ["0", "1"]):
        row.note(RANKS, f"found {str(ranks)[:60]!r}", "Give [0, 1] or [1, 0], the better first")
    image = row.record.get("image")
    if not image:
        row.note("image", "it is not there", "Give the picture or its path")
    if row.problems:
        return {}
    assert isinstance(answers, list)
    assert isinstance(ranks, list)
    better = 0 if int(ranks[0]) == 0 else 1
    source = (row.text("query_source", optional=True) or row.text("id", optional=True)).lower()
    group = next((g for g, names in GROUPS.items() if any(n in source for n in names)), "general")
    return {
        "prompt": query,
        "chosen": answers[better],
        "rejected": answers[1 - better],
        "images": [image],
        "group": row.text("group", optional=True) or group,
    }


RANKS = "human_ranking"


def pairs(path: Path, images: Path | None) -> PairSet:
    """Returns the pairs of the file."""
    return reward_pairs(path, images, pair)


BENCHMARK = pair_benchmark(
    "vl_rewardbench",
    "VL-RewardBench",
    pairs,
    rows=1250,
    files=("vl_rewardbench*.json*", "VL-RewardBench*.parquet"),
    layout=".jsonl, .json or .parquet: query, response, human_ranking, image",
)
