"""Rows that are too long are refused, skipped, cut, or get smaller images."""

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
def test_a_row_that_fits_does_not_change(qwen: Path, policy: str) -> None:
    uncut = adapter_of(qwen, None, "error").encode(LONG)
    group = adapter_of(qwen, longest(uncut), policy).encode(LONG)
    assert group.prompt_ids.tolist() == uncut.prompt_ids.tolist()
    assert (group.cut_responses, group.images.shrunk) == (0, 0)


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_the_error_of_a_long_row_has_its_length(qwen: Path, policy: str) -> None:
    tokens = longest(adapter_of(qwen, None, "error").encode(LONG))
    with pytest.raises(RowTooLong) as error:
        adapter_of(qwen, tokens - 1, policy).encode(LONG)
    (problem,) = error.value.problems
    assert f"the row has {tokens} tokens with its longest response" in problem.message
    assert f"Set data.max_length to {tokens} or more" in problem.remedy


def test_responses_are_cut_and_images_are_not(qwen: Path) -> None:
    uncut = adapter_of(qwen, None, "error").encode(LONG)
    group = adapter_of(qwen, longest(uncut) - 5, "truncate_response").encode(LONG)
    assert longest(group) == longest(uncut) - 5
    assert group.cut_responses == 1
    assert group.images.tokens == uncut.images.tokens
    assert group.images.inputs["pixel_values"].equal(uncut.images.inputs["pixel_values"])


def test_responses_that_are_equal_after_a_cut_are_counted(qwen: Path) -> None:
    twins = row(
        "twins", "What is it?", ("A red square " * 6 + "here", "A red square " * 6 + "there")
    )
    unlimited = adapter_of(qwen, None, "error")
    assert preflight([LONG, twins], unlimited).identical_pairs == 0
    limit = longest(unlimited.encode(twins)) - 12
    result = preflight([SHORT, twins], adapter_of(qwen, limit, "truncate_response"))
    assert (result.cut_responses, result.identical_pairs) == (2, 1)


def test_smaller_images_are_only_suggested_if_they_have_fewer_tokens(
    qwen: Path, checkpoint: Checkpoint
) -> None:
    suggestions = {}
    for folder in (qwen, checkpoint("llava")):
        with pytest.raises(RowTooLong) as error:
            adapter_of(folder, 12, "error").encode(LONG)
        suggestions[folder] = "make the images smaller" in error.value.problems[0].remedy
    assert list(suggestions.values()) == [True, False]


@pytest.mark.parametrize("fewer", [1, 3, 5])
def test_images_are_made_smaller_until_the_row_fits(qwen: Path, fewer: int) -> None:
    uncut = adapter_of(qwen, None, "error").encode(LONG)
    group = adapter_of(qwen, longest(uncut) - fewer, "shrink_image").encode(LONG)
    assert longest(group) <= longest(uncut) - fewer
    assert 0 < group.images.tokens < uncut.images.tokens
    assert (group.images.shrunk, group.cut_responses) == (1, 0)
    assert [ids.tolist() for ids in group.response_ids] == [
        ids.tolist() for ids in uncut.response_ids
    ]


def test_a_row_with_text_that_is_too_long_is_refused(qwen: Path) -> None:
    with pytest.raises(RowTooLong):
        adapter_of(qwen, 20, "shrink_image").encode(LONG)


@pytest.mark.parametrize("model_type", ["llava", "llama"])
def test_families_with_a_fixed_image_size_refuse_to_shrink(
    checkpoint: Checkpoint, model_type: str
) -> None:
    with pytest.raises(ModelError, match=r"data.length_policy: .*(a fixed size|no images)"):
        adapter_of(checkpoint(model_type), 50, "shrink_image")


def test_long_rows_are_skipped_and_counted_on_request(qwen: Path) -> None:
    tokens = longest(adapter_of(qwen, None, "error").encode(LONG))
    adapter = adapter_of(qwen, tokens - 1, "drop")
    with pytest.raises(DataError, match="the row has"):
        preflight([SHORT, LONG, SHORT], adapter)
    result = preflight([SHORT, LONG, SHORT], adapter, drop_long=True)
    assert (result.too_long, result.rows, result.skipped) == (1, 2, {1})
    assert result.kept([SHORT, LONG, SHORT]) == [SHORT, SHORT]
