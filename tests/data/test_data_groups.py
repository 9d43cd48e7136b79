"""Joined rows have the same responses, pairs and loss."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from builders import batch_of, load_tiny, make_image
from trainers import config, make_trainer

from unidpo_mm.check.run import check_data
from unidpo_mm.config import SourceOptions
from unidpo_mm.data.groups import (
    group_by_prompt,
    repeat_problems,
    repeat_sources,
    weight_by_group,
)
from unidpo_mm.data.load import DataFiles, load_rows, rows_from_records
from unidpo_mm.records import Pair


def pair(prompt: str, chosen: str, rejected: str, **options: Any) -> dict[str, Any]:
    scores = {"a": 5.0, "b": 4.0, "c": 2.0, "d": 1.0}
    return {
        "prompt": prompt,
        "chosen": chosen * 3,
        "rejected": rejected * 3,
        "score_chosen": scores[chosen],
        "score_rejected": scores[rejected],
        **options,
    }


RECORDS = [
    pair("What?", "a", "b"),
    pair("Who?", "a", "d"),
    pair("What?", "a", "c", weight=0.5),
    pair("What?", "b", "d"),
    pair("What?", "c", "d", domain="math"),
]


def test_rows_of_one_prompt_are_joined() -> None:
    first, who, other_domain = group_by_prompt(rows_from_records(RECORDS), max_units=8)
    assert [response.text for response in first.responses] == ["aaa", "bbb", "ccc", "ddd"]
    assert first.pairs == (Pair(0, 1), Pair(0, 2, 0.5), Pair(1, 3))
    assert first.id == "data:1 + data:3 + data:4"
    assert "row 1 + " in first.where
    assert "row 4" in first.where
    assert (who.id, other_domain.id) == ("data:2", "data:5")


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 1, 1, 1]), (3, [3, 1, 1])]
)
def test_a_group_stays_within_a_micro_batch(most: int, sizes: list[int]) -> None:
    joined = group_by_prompt(rows_from_records(RECORDS), max_units=most)
    assert sorted((len(row.pairs) for row in joined), reverse=True) == sizes


def test_a_batch_has_the_ids_of_its_pairs_also_after_joining(checkpoint: Any) -> None:
    loaded = load_tiny(checkpoint("llama"))
    rows = rows_from_records(RECORDS)
    ids = {row.pair_id(pair) for row in rows for pair in row.pairs}
    assert len(ids) == len(RECORDS)
    for joined in (rows, group_by_prompt(rows, max_units=8)):
        batch = batch_of(loaded, joined)
        assert sorted(batch.pairs.ids) == sorted(ids)
        scores = dict(zip(batch.pairs.ids, batch.scores[batch.pairs.indices].tolist(), strict=True))
        for row in rows:
            expected = [response.score for response in row.responses]
            assert scores[row.pair_id(row.pairs[0])] == expected


def test_the_same_prompt_with_another_image_is_another_prompt() -> None:
    (row,) = rows_from_records([pair("What?", "a", "b")])
    slot = rows_from_records([{**pair("<image> What?", "a", "b"), "images": [image_file(1)]}])
    other = rows_from_records([{**pair("<image> What?", "a", "b"), "images": [image_file(2)]}])
    again = rows_from_records([{**pair("<image> What?", "a", "c"), "images": [image_file(1)]}])
    rows = [dataclasses.replace(r, id=str(n)) for n, r in enumerate([row, *slot, *other, *again])]
    assert [len(r.pairs) for r in group_by_prompt(rows, max_units=9)] == [1, 2, 1]


def image_file(seed: int) -> Any:
    return make_image(seed)


def test_the_same_response_with_another_score_is_another_response() -> None:
    records = [pair("What?", "a", "b"), {**pair("What?", "a", "c"), "score_chosen": 3.0}]
    (joined,) = group_by_prompt(rows_from_records(records), max_units=9)
    assert [response.score for response in joined.responses] == [5.0, 4.0, 3.0, 2.0]


def test_rows_without_pairs_stay_alone() -> None:
    single = {"prompt": "What?", "responses": [{"text": "a", "score": 1}]}
    rows = rows_from_records([single, single | {"id": "2"}])
    assert group_by_prompt(rows, max_units=9) == rows


def test_a_group_counts_once() -> None:
    (joined,) = weight_by_group(group_by_prompt(rows_from_records(RECORDS[:1] * 1), max_units=9))
    assert [p.weight for p in joined.pairs] == [1.0]
    first, *_ = weight_by_group(group_by_prompt(rows_from_records(RECORDS), max_units=9))
    assert [p.weight for p in first.pairs] == pytest.approx([1 / 3, 1 / 6, 1 / 3])


def evaluated(model: Path, folder: Path, **settings: Any) -> dict[str, float]:
    args = config(folder, layout="auto", per_device_eval_batch_size=8, **settings)
    trainer = make_trainer(model, RECORDS, args, eval_dataset=RECORDS)
    assert trainer.eval_dataset is not None
    assert (len(trainer.eval_dataset) < 5) is args.group_by_prompt
    return trainer.evaluate()


def test_joining_does_not_change_the_loss(checkpoint: Any, tmp_path: Path) -> None:
    kinds = ({}, {"group_by_prompt": True, "per_device_train_batch_size": 8})
    item, other = (evaluated(checkpoint("llama"), tmp_path, **kind) for kind in kinds)
    for name in ("eval_loss", "eval_w_qual", "eval_w_perf", "eval_rewards/margins"):
        assert other[name] == pytest.approx(item[name], abs=2e-6), name


def test_the_nll_of_a_response_can_be_counted_once(checkpoint: Any, tmp_path: Path) -> None:
    common = {"group_by_prompt": True, "sft_weight": 1.0, "reference": "frozen_copy"}
    often, once = (
        evaluated(
            checkpoint("llama"), tmp_path, loss_kwargs={"nll_once": kind}, **common
        )["eval_loss"]
        for kind in (False, True)
    )  # fmt: skip
    assert often > once + 0.1


def test_sources_with_the_same_name_are_repeated_equally(tmp_path: Path) -> None:
    sources = []
    for folder, repeat in (("a", 3), ("b", 1), ("c", 3)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "train.jsonl"
        path.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
        sources.append(SourceOptions(path=str(path), repeat=repeat))
    problems = check_data(DataFiles(sources=sources)).problems
    [problem] = [item for item in problems if "repeat" in item.where]
    assert str(problem) == (
        "data source 'train', repeat: two sources have this name and different values (3, 1). Set "
        "a different 'name' for one of them."
    )
    assert list(repeat_problems([sources[0], sources[2]])) == []
    named = [sources[0], sources[1].model_copy(update={"name": "b"})]
    assert list(repeat_problems(named)) == []
    rows = repeat_sources(load_rows(named), {"train": 3, "b": 1})
    assert [row.source for row in rows] == ["train"] * 3 + ["b"]
