"""VL-RewardBench: general questions, hallucination, reasoning; accuracy by group and their mean."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..data.json_files import JsonRow
from ._pairs import pair_benchmark, reward_pairs

GROUPS = {
    "reasoning": ("mathverse", "mmmu", "math"),
    "hallucination": ("rlaif", "rlhf", "povid", "hallu"),
}
"""Group -> parts of the name of a question's source; all others are general."""
RANKS = "human_ranking"


def pair(row: JsonRow) -> Mapping[str, Any]:
    """Build the pair of a record: the response with the lower rank is better."""
    query, responses, ranks = row.text("query"), row.record.get("response"), row.record.get(RANKS)
    if not (isinstance(responses, list) and len(responses) == 2):
        row.note("response", f"got {str(responses)[:60]!r}", "Use a list of two responses")
    if not (isinstance(ranks, list) and sorted(map(str, ranks)) == ["0", "1"]):
        row.note(RANKS, f"got {str(ranks)[:60]!r}", "Use [0, 1] or [1, 0], 0 for the better")
    image = row.record.get("image")
    if not image:
        row.note("image", "missing", "Add the image or its path")
    if row.problems:
        return {}
    assert isinstance(responses, list)
    assert isinstance(ranks, list)
    better = 0 if int(ranks[0]) == 0 else 1
    source = (row.text("query_source", optional=True) or row.text("id", optional=True)).lower()
    group = next((g for g, names in GROUPS.items() if any(n in source for n in names)), "general")
    return {
        "prompt": query,
        "chosen": responses[better],
        "rejected": responses[1 - better],
        "images": [image],
        "group": row.text("group", optional=True) or group,
    }


BENCHMARK = pair_benchmark(
    "vl_rewardbench",
    "VL-RewardBench",
    partial(reward_pairs, read=pair),
    rows=1250,
    files=("vl_rewardbench*.json*", "VL-RewardBench*.parquet"),
    layout=".jsonl, .json or .parquet: query, response, human_ranking, image",
)
