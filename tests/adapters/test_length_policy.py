"""Rows that are too long are refused, left out, cut, or shown smaller images."""

from collections.abc import Callable
from pathlib import Path

import pytest
from builders import load_tiny, make_image, preflight, row

from unidpo_mm.errors import DataError, ModelError, RowTooLong

Checkpoint = Callable[[str], Path]
LONG = row("long", "What is it?", ("A red square " * 6, "Blue"), images=[make_image(1, (112, 84))])
SHORT = row("short", "What is it?", ("A", "Blue"), images=[make_image(1, (28, 28))])


def adapter_of(folder: Path, max_length: int | None, policy: str):
    return load_tiny(folder, max_length=max_length, length_policy=policy).adapter


def longest(group) -> int:
    return group.prompt_ids.numel() + max(ids.numel() for ids in group.response_ids)


@pytest.fixture
def qwen(checkpoint: Checkpoint) -> Path:
    return checkpoint("qwen2_vl")


@pytest.mark.parametrize("policy", ["error", "drop", "shrink_image"])
def test_a_row_that_fits_stays_as_it_is(qwen: Path, policy: str) -> None:
    whole = adapter_of(qwen, None, "error").encode(LONG)
    group = adapter_of(qwen, longest(whole), policy).encode(LONG)
    assert group.prompt_ids.tolist() == whole.prompt_ids.tolist()
    assert (group.cut_responses, group.shrunk_images) == (0, 0)


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_a_row_too_long_is_refused_with_its_numbers(qwen: Path, policy: str) -> None:
    tokens = longest(adapter_of(qwen, None, "error").encode(LONG))
    with pytest.raises(RowTooLong) as error:
        adapter_of(qwen, tokens - 1, policy).encode(LONG)
    (problem,) = error.value.problems
    assert f"the row has {tokens} tokens with its longest answer" in problem.message
    assert f"Set data.max_length to {tokens} or more" in problem.remedy


def test_answers_are_cut_and_images_are_not(qwen: Path) -> None:
    whole = adapter_of(qwen, None, "error").encode(LONG)
    group = adapter_of(qwen, longest(whole) - 5, "truncate_response").encode(LONG)
    assert longest(group) == longest(whole) - 5
    assert group.cut_responses == 1
    assert group.image_tokens == whole.image_tokens
    assert group.image_extras["pixel_values"].equal(whole.image_extras["pixel_values"])


def test_answers_that_a_cut_makes_equal_are_counted(qwen: Path) -> None:
    twins = row(
        "twins", "What is it?", ("A red square " * 6 + "here", "A red square " * 6 + "there")
    )
    whole = adapter_of(qwen, None, "error")
    assert preflight([LONG, twins], whole).identical_pairs == 0
    limit = longest(whole.encode(twins)) - 12
    found = preflight([SHORT, twins], adapter_of(qwen, limit, "truncate_response"))
    assert (found.cut_responses, found.identical_pairs) == (2, 1)


def test_smaller_images_are_no_remedy_where_they_are_as_many_tokens(
    qwen: Path, checkpoint: Checkpoint
) -> None:
    said = {}
    for folder in (qwen, checkpoint("llava")):
        with pytest.raises(RowTooLong) as error:
            adapter_of(folder, 12, "error").encode(LONG)
        said[folder] = "make the images smaller" in error.value.problems[0].remedy
    assert list(said.values()) == [True, False]


@pytest.mark.parametrize("fewer", [1, 3, 5])
def test_images_are_made_smaller_until_the_row_fits(qwen: Path, fewer: int) -> None:
    whole = adapter_of(qwen, None, "error").encode(LONG)
    group = adapter_of(qwen, longest(whole) - fewer, "shrink_image").encode(LONG)
    assert longest(group) <= longest(whole) - fewer
    assert 0 < group.image_tokens < whole.image_tokens
    assert (group.shrunk_images, group.cut_responses) == (1, 0)
    assert [ids.tolist() for ids in group.response_ids] == [
        ids.tolist() for ids in whole.response_ids
    ]


def test_a_row_whose_text_alone_is_too_long_is_refused(qwen: Path) -> None:
    with pytest.raises(RowTooLong):
        adapter_of(qwen, 20, "shrink_image").encode(LONG)


@pytest.mark.parametrize("model_type", ["llava", "llama"])
def test_families_whose_images_have_one_size_refuse_to_shrink(
    checkpoint: Checkpoint, model_type: str
) -> None:
    with pytest.raises(ModelError, match=r"data.length_policy: .*made smaller"):
        adapter_of(checkpoint(model_type), 50, "shrink_image")


def test_rows_too_long_are_left_out_and_counted_where_that_is_asked_for(qwen: Path) -> None:
    tokens = longest(adapter_of(qwen, None, "error").encode(LONG))
    adapter = adapter_of(qwen, tokens - 1, "drop")
    with pytest.raises(DataError, match="the row has"):
        preflight([SHORT, LONG, SHORT], adapter)
    found = preflight([SHORT, LONG, SHORT], adapter, drop_long=True)
    assert (found.too_long, found.rows, found.skipped) == (1, 2, {1})
    assert found.kept([SHORT, LONG, SHORT]) == [SHORT, SHORT]
