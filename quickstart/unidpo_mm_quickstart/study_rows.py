"""Write the pairs of the study: the quick-start's text and math tasks under several conditions.

Every condition changes the pairs or their scores, never the held-out pairs, whose labels are right:

- ``clean``: all labels are right, and scores state how much is wrong with the worse response.
- ``flip20_informed``, ``flip40_informed``: 20 or 40 % of the labels are wrong, and the responses of
  these pairs have medium scores with a small difference, as from a judge that was not sure.
- ``flip20_blind``, ``flip40_blind``: the same labels are wrong, with scores like all others.
- ``duplicated``: a few text pairs, repeated until they are three quarters of the data, and math
  pairs, of which each occurs once.
- ``uniform``: math pairs with one kind of error and one score margin.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .exercises import math_tasks, text_tasks
from .training_rows import task_row, write_jsonl

__all__ = ["CONDITIONS", "HELD_OUT", "write_study"]

CONDITIONS = (
    "clean",
    "flip20_informed",
    "flip20_blind",
    "flip40_informed",
    "flip40_blind",
    "duplicated",
    "uniform",
)
HELD_OUT = "heldout"
"""Name of the file with held-out pairs."""

PROMPTS = 40
"""Training prompts of each domain, with two pairs each."""
HELD_OUT_PROMPTS = 120
"""Held-out prompts of each domain, with one pair each."""

UNSURE, UNSURE_MARGIN = 5.0, 0.4
"""Score of the chosen response and score margin where scores reflect a wrong label, of 0 to 10."""

EASY_PAIRS = 8
"""Different pairs among the repeated ones of ``duplicated``."""

Row = dict[str, Any]


def write_study(folder: Path, *, seed: int, split: str) -> None:
    """Write a file of pairs for each condition, and one of held-out pairs.

    Args:
        folder: Directory for the JSONL files.
        seed: Seed of tasks, wrong labels and orders.
        split: Split of the held-out pairs, ``heldout`` or ``validation``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [task_row(task) for task in text_tasks("train", PROMPTS, seed=seed, pairs=2)]
    sums = [task_row(task) for task in math_tasks("train", PROMPTS, seed=seed, pairs=2)]
    draw = random.Random(f"study-{seed}")
    clean = draw.sample([*words, *sums], len(words) + len(sums))
    order = draw.sample(range(len(clean)), len(clean))
    conditions = {"clean": clean}
    for percent in (20, 40):
        flipped = set(order[: len(clean) * percent // 100])
        for informed in (True, False):
            name = f"flip{percent}_{'informed' if informed else 'blind'}"
            conditions[name] = [
                flip(row, informed=informed) if number in flipped else row
                for number, row in enumerate(clean)
            ]
    conditions["duplicated"] = draw.sample(mixed := _duplicated(words, sums), len(mixed))
    conditions["uniform"] = _uniform(seed, len(clean))
    assert tuple(conditions) == CONDITIONS
    for name, rows in conditions.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    words = [task_row(task) for task in text_tasks(split, HELD_OUT_PROMPTS, seed=seed)]
    sums = [task_row(task) for task in math_tasks(split, HELD_OUT_PROMPTS, seed=seed)]
    write_jsonl(folder / f"{HELD_OUT}.jsonl", [*words, *sums])


def flip(row: Mapping[str, Any], *, informed: bool) -> Row:
    """Return a row whose label is wrong; with `informed`, its scores hardly differ."""
    swapped = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    if informed:
        swapped |= {"score_chosen": UNSURE, "score_rejected": UNSURE - UNSURE_MARGIN}
    return swapped


def _duplicated(words: Sequence[Row], sums: Sequence[Row]) -> list[Row]:
    hard = sums[: len(sums) // 2]
    easy = [
        {**words[number % EASY_PAIRS], "id": f"{words[number % EASY_PAIRS]['id']}-{number}"}
        for number in range(3 * len(hard))
    ]
    return [*easy, *hard]


def _uniform(seed: int, count: int) -> list[Row]:
    tasks = math_tasks("train", 3 * count, seed=seed)
    rows = [task_row(task) for task in tasks if task.fault == "wrong number"]
    return rows[:count]
