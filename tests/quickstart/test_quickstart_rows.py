"""The rows are balanced, errors are planted as documented, and splits are disjoint."""

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from unidpo_mm_quickstart.exercises import balance, math_tasks, text_tasks
from unidpo_mm_quickstart.images import KINDS, SHARES, Canvas, Emoji, split_emoji
from unidpo_mm_quickstart.training_rows import (
    PLANTED_SHARE,
    caption_pair,
    caption_pairs,
    shuffled,
    task_row,
    warmup_row,
)

from unidpo_mm.data.load import rows_from_records


def canvases(count: int) -> list[Canvas]:
    contents = itertools.cycle(
        content
        for first, second in zip(KINDS, KINDS[2:] + KINDS[:2], strict=True)
        for content in ((first,), (first, second))
    )
    return [
        Canvas(id=f"c{n}", file=Path(f"c{n}.png"), kinds=kinds, concepts=())
        for n, kinds in zip(range(count), contents, strict=False)
    ]


def fault(pair: dict[str, Any]) -> str:
    """Return the error in the rejected caption of a pair."""
    right, wrong = (pair[name].split(" and ") for name in ("chosen", "rejected"))
    if len(set(wrong)) < len(wrong):
        return "repeated"
    if len(right) != len(wrong):
        return "added" if len(wrong) > len(right) else "omitted"
    return "wrong" if len(right) == 1 else "half wrong"


def test_caption_lengths_are_balanced():
    pairs = [caption_pair(c, n, random.Random(n)) for n, c in enumerate(canvases(264))]
    words = [len(p["chosen"].split()) - len(p["rejected"].split()) for p in pairs]
    assert sum(d > 0 for d in words) == sum(d < 0 for d in words)
    assert Counter(map(fault, pairs)) == {
        "added": 110,
        "omitted": 110,
        "wrong": 22,
        "half wrong": 22,
    }


def test_chosen_captions_are_correct_and_rejected_ones_are_not():
    for number, canvas in enumerate(canvases(80)):
        pair = caption_pair(canvas, number, random.Random(number))
        assert pair["chosen"] == canvas.caption != pair["rejected"]
        assert pair["score_chosen"] > pair["score_rejected"]


def several_pairs(count: int) -> list[dict[str, Any]]:
    """Return the pairs of some training images."""
    return [
        row
        for n, canvas in enumerate(canvases(count))
        for row in caption_pairs(canvas, n, random.Random(n))
    ]


def test_several_pairs_of_an_image_are_balanced_and_differ():
    rows = several_pairs(40)
    words = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in rows]
    assert sum(d > 0 for d in words) == sum(d < 0 for d in words) == 40
    assert Counter(map(fault, rows)) == {
        "added": 20,
        "repeated": 20,
        "omitted": 40,
        "wrong": 20,
        "half wrong": 20,
    }
    assert len({(row["images"][0], row["rejected"]) for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_errors_are_planted_only_in_captions_of_images_with_one_object():
    generator = random.Random(0)
    single = planted = 0
    for canvas in canvases(2000):
        text = warmup_row(canvas, generator)["responses"][0]["text"]
        if len(canvas.kinds) == 2:
            assert text == canvas.caption
        else:
            single += 1
            planted += text != canvas.caption
            assert text.startswith(canvas.caption)
    assert planted / single == pytest.approx(PLANTED_SHARE, abs=0.05)


def test_shuffling_moves_every_image_and_keeps_the_texts():
    rows = several_pairs(50)
    mixed = shuffled(rows, random.Random(1))
    assert [row["chosen"] for row in mixed] == [row["chosen"] for row in rows]
    assert all(a["images"] != b["images"] for a, b in zip(rows, mixed, strict=True))
    assert sorted(r["images"] for r in rows) == sorted(r["images"] for r in mixed)
    # The pairs of an image still share one, so that control and recipe compute the same
    images = {
        (row["images"][0], other["images"][0]) for row, other in zip(rows, mixed, strict=True)
    }
    assert len(images) == 50


@pytest.mark.parametrize("make", [math_tasks, text_tasks])
def test_splits_have_no_prompt_in_common_and_depend_on_the_seed_only(make):
    train, validation, held_out = (
        {task.prompt for task in make(split, 80, seed=0)}
        for split in ("train", "validation", "heldout")
    )
    assert not train & validation
    assert not train & held_out
    assert not validation & held_out
    assert make("train", 20, seed=3) == make("train", 20, seed=3) != make("train", 20, seed=4)


def test_text_words_belong_to_one_split():
    def words(split: str) -> set[str]:
        return {task.prompt.split()[3] for task in text_tasks(split, 100, seed=0)}

    assert not words("train") & words("heldout")


@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("make", [math_tasks, text_tasks])
def test_length_does_not_predict_the_better_response(make, pairs):
    counts = balance(make("train", 240 // pairs, seed=0, pairs=pairs))
    assert abs(counts["longer"] - counts["shorter"]) <= 0.2 * 240


@pytest.mark.parametrize("make", [math_tasks, text_tasks])
def test_several_pairs_of_a_prompt_share_the_better_response_and_differ_in_the_worse(make):
    tasks = make("train", 30, seed=0, pairs=3)
    assert len({task.id for task in tasks}) == len(tasks) == 90
    assert set(Counter((task.prompt, task.chosen) for task in tasks).values()) == {3}
    assert len({(task.prompt, task.rejected) for task in tasks}) == 90


def test_chosen_sums_are_correct_and_rejected_ones_are_not():
    for task in math_tasks("train", 60, seed=0):
        question = task.prompt.split("?")[0].removeprefix("What is ")
        first, _, second, sign, third = question.split()
        result = int(first) + int(second) + (1 if sign == "+" else -1) * int(third)
        number_only = task.prompt.endswith("number only.")
        good = str(result) if number_only else f"The answer is {result}."
        assert task.chosen == good != task.rejected


def test_rows_are_read_by_the_core():
    tasks = [*math_tasks("train", 6, seed=0), *text_tasks("train", 6, seed=0)]
    rows = rows_from_records([task_row(task) for task in tasks])
    assert Counter(row.domain for row in rows) == {"math": 6, "text": 6}
    images = rows_from_records(
        [caption_pair(c, n, random.Random(n)) for n, c in enumerate(canvases(4))]
    )
    assert {row.domain for row in images} == {"multimodal"}


def test_splits_have_no_concept_in_common():
    emoji = [
        Emoji(concept=f"{kind}-{n}", kind=kind, file=Path(f"{kind}{n}.png"))
        for kind in KINDS
        for n in range(40)
    ]
    parts = split_emoji(emoji)
    names = {split: {item.concept for item in members} for split, members in parts.items()}
    assert set(names) == set(SHARES)
    assert not names["train"] & names["heldout"]
    assert not names["validation"] & names["heldout"]
    assert not names["train"] & names["validation"]
