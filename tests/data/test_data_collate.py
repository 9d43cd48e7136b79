"""The plain layout against expectations written by hand."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from unidpo_mm.data.collate import GroupCollator, collate
from unidpo_mm.errors import DataError
from unidpo_mm.records import EncodedGroup, Media, Pair, Preferences, RowInfo

PAD = 9


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def group(name: str, prompt: Tensor, *responses: Tensor, **fields: Any) -> EncodedGroup:
    row = RowInfo(
        id=name,
        domain=fields.pop("domain", "text"),
        source=fields.pop("source", "s"),
        where=f"row {name}",
    )
    pairs = fields.pop("pairs", (Pair(0, 1),))
    units = fields.pop("response_units", (0,))
    preferences = Preferences(
        scores=torch.arange(len(responses), 0, -1, dtype=torch.float64),
        pairs=pairs,
        pair_ids=tuple(f"{name}:{pair.chosen}:{pair.rejected}" for pair in pairs),
        response_units=units,
        response_unit_ids=tuple(f"{name}:{number}" for number in units),
    )
    return EncodedGroup(
        row=row, prompt_ids=prompt, response_ids=responses, preferences=preferences, **fields
    )


ONE = group("one", ids(1, 2, 3), ids(4, 5), ids(6))
TWO = group(
    "two",
    ids(7),
    ids(1, 2, 3, 4),
    ids(5),
    ids(6, 6),
    source="t",
    domain="math",
    pairs=(Pair(2, 0, 0.5), Pair(2, 1)),
    response_units=(2,),
)


def test_right_padding_by_hand() -> None:
    batch = collate([ONE, TWO], pad_token_id=PAD)
    assert batch.inputs.layout == "plain"
    assert batch.inputs.tokens["input_ids"].tolist() == [
        [1, 2, 3, 4, 5],
        [1, 2, 3, 6, 9],
        [7, 1, 2, 3, 4],
        [7, 5, 9, 9, 9],
        [7, 6, 6, 9, 9],
    ]
    assert batch.inputs.tokens["attention_mask"].tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
    ]
    assert batch.inputs.segment.tolist() == [
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, -1],
        [0, 1, 1, 1, 1],
        [0, 1, -1, -1, -1],
        [0, 1, 1, -1, -1],
    ]
    assert batch.inputs.row_position[1].tolist() == [0, 1, 2, 3, 0]
    assert batch.targets.row.tolist() == [0, 0, 1, 2, 2, 2, 2, 3, 4, 4]
    # one before each target
    assert batch.targets.position.tolist() == [2, 3, 2, 0, 1, 2, 3, 0, 0, 1]
    assert batch.targets.ids.tolist() == [4, 5, 6, 1, 2, 3, 4, 5, 6, 6]
    assert batch.targets.response.tolist() == [0, 0, 1, 2, 2, 2, 2, 3, 4, 4]
    assert batch.targets.lengths.tolist() == [2, 1, 4, 1, 2]


def test_left_padding_by_hand() -> None:
    batch = collate([ONE, TWO], pad_token_id=PAD, padding_side="left")
    assert batch.inputs.tokens["input_ids"].tolist() == [
        [1, 2, 3, 4, 5],
        [9, 1, 2, 3, 6],
        [7, 1, 2, 3, 4],
        [9, 9, 9, 7, 5],
        [9, 9, 7, 6, 6],
    ]
    assert batch.inputs.segment[3].tolist() == [-1, -1, -1, 0, 1]
    assert batch.inputs.row_position[4].tolist() == [0, 0, 0, 1, 2]
    assert batch.targets.row.tolist() == [0, 0, 1, 2, 2, 2, 2, 3, 4, 4]
    assert batch.targets.position.tolist() == [2, 3, 3, 0, 1, 2, 3, 3, 2, 3]
    assert batch.targets.ids.tolist() == [4, 5, 6, 1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_every_target_is_one_position_after_the_state_that_predicts_it(padding_side: Any) -> None:
    batch = collate([TWO, ONE, TWO], pad_token_id=PAD, padding_side=padding_side)
    following = batch.inputs.tokens["input_ids"][batch.targets.row, batch.targets.position + 1]
    assert torch.equal(following, batch.targets.ids)
    assert (batch.inputs.segment[batch.targets.row, batch.targets.position + 1] == 1).all()


def test_units_point_into_the_responses_of_the_batch() -> None:
    batch = collate([ONE, TWO], pad_token_id=PAD)
    assert batch.pairs.chosen.tolist() == [0, 4, 4]
    assert batch.pairs.rejected.tolist() == [1, 2, 3]
    assert batch.pairs.weight.tolist() == [1.0, 0.5, 1.0]
    assert batch.pairs.source.tolist() == [0, 1, 1]
    assert batch.sources == ("s", "t")
    assert batch.responses.indices.tolist() == [[0], [4]]
    assert batch.responses.weight.tolist() == [1.0, 1.0]
    assert batch.scores.tolist() == [2, 1, 3, 2, 1]
    assert batch.pairs.row_ids == ("one", "two", "two")
    assert batch.pairs.ids == ("one:0:1", "two:2:0", "two:2:1")
    assert batch.responses.ids == ("one:0", "two:2")
    assert batch.responses.source.tolist() == [0, 1]
    assert batch.pairs.domains == ("text", "math", "math")
    assert batch.responses.row_ids == ("one", "two")
    assert batch.targets.row_ids == ("one", "one", "two", "two", "two")


def test_the_weight_of_a_group_multiplies_that_of_its_pairs() -> None:
    filler = dataclasses.replace(TWO, weight=0.0)
    batch = collate([filler, ONE], pad_token_id=PAD)
    assert batch.pairs.weight.tolist() == [0.0, 0.0, 1.0]
    assert batch.responses.weight.tolist() == [0.0, 1.0]


def test_the_same_group_may_come_twice() -> None:
    batch = collate([ONE, ONE], pad_token_id=PAD)
    assert batch.scores.tolist() == [2, 1, 2, 1]
    assert len(batch.pairs) == 2


def test_token_extras_are_padded_with_the_ids_and_zero_where_a_group_has_none() -> None:
    extra = dataclasses.replace(
        ONE, token_extras={"token_type_ids": (ids(1, 0, 1), ids(2, 2), ids(3))}
    )
    for side, last in (("right", [1, 0, 1, 3, 0]), ("left", [0, 1, 0, 1, 3])):
        batch = collate([extra, TWO], pad_token_id=PAD, padding_side=side)
        result = batch.inputs.tokens["token_type_ids"]
        assert result[0].tolist() == [1, 0, 1, 2, 2]
        assert result[1].tolist() == last
        assert result[2].tolist() == [0] * 5


def with_images(name: str, *tensors: Tensor, **fields: Any) -> EncodedGroup:
    return group(
        name,
        ids(8, 8, 1),
        ids(2),
        ids(3),
        media={
            "image": Media(
                inputs={"pixel_values": tensors[0], **fields}, entries=1, tokens=2, token_id=8
            )
        },
    )


def test_images_come_once_for_every_row_of_their_group_in_order() -> None:
    a, b = torch.full((1, 2), 1.0), torch.full((2, 2), 2.0)
    batch = collate([with_images("a", a), ONE, with_images("b", b)], pad_token_id=PAD)
    assert batch.inputs.images.inputs["pixel_values"][:, 0].tolist() == [1, 1, 2, 2, 2, 2]
    assert collate([ONE], pad_token_id=PAD).inputs.media == {}


def test_ragged_images_are_filled_up_with_zeros_and_never_cut() -> None:
    small, large = torch.ones(1, 2, 3, 2), torch.ones(1, 4, 2, 3) * 2
    batch = collate([with_images("a", small), with_images("b", large)], pad_token_id=PAD)
    result = batch.inputs.images.inputs["pixel_values"]
    assert result.shape == (4, 4, 3, 3)
    assert torch.equal(result[0, :2, :3, :2], small[0])
    assert torch.equal(result[2, :4, :2, :3], large[0])
    assert float(result.sum()) == 2 * float(small.sum() + large.sum())


def test_side_tensors_of_images_need_not_come_with_every_group() -> None:
    sized = with_images("a", torch.ones(1, 2), image_sizes=torch.tensor([[3, 4]]))
    batch = collate([sized, with_images("b", torch.ones(1, 2))], pad_token_id=PAD)
    assert batch.inputs.images.inputs["image_sizes"].tolist() == [[3, 4], [3, 4]]
    assert batch.inputs.images.inputs["pixel_values"].shape == (4, 2)


def test_pixels_have_the_asked_format_and_other_numbers_keep_theirs() -> None:
    fields = {"image_sizes": torch.tensor([[3, 4]]), "second_per_grid_ts": torch.tensor([0.1])}
    groups = [with_images("a", torch.full((1, 2), 0.1), **fields)]
    batch = collate(groups, pad_token_id=PAD, media_dtype=torch.bfloat16)
    inputs = batch.inputs.images.inputs
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["image_sizes"].dtype == torch.int64
    assert inputs["second_per_grid_ts"].dtype == torch.float32
    again = collate(groups, pad_token_id=PAD).inputs.images.inputs["pixel_values"]
    assert again.dtype == torch.float32


def test_nothing_to_collate_is_refused() -> None:
    with pytest.raises(DataError, match="there is no group"):
        collate([], pad_token_id=PAD)


def test_the_collator_gives_a_mapping_and_adds_a_filler_where_images_lack() -> None:
    filler = dataclasses.replace(with_images("filler", torch.ones(1, 2)), weight=0.0)
    collator = GroupCollator(pad_token_id=PAD, fillers={"image": filler})
    text = collator([ONE])["batch"]
    assert text.pairs.weight.tolist() == [1.0, 0.0]
    assert text.inputs.images.inputs["pixel_values"].shape == (2, 2)
    calls = collator([ONE, with_images("a", torch.ones(1, 2))])["batch"]
    assert calls.pairs.weight.tolist() == [1.0, 1.0]
    assert GroupCollator(pad_token_id=PAD)([ONE])["batch"].pairs.ids == ("one:0:1",)
