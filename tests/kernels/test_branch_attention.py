"""Attention in pieces, or of short groups together, equals attention with one mask for the row."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unidpo_mm.kernels import branch_attention
from unidpo_mm.kernels.branch_attention import by_branch
from unidpo_mm.kernels.group_spans import group_spans

HEADS, KEY_HEADS, WIDTH = 6, 2, 8

LENGTHS = {
    "responses shorter than the prompt": [(9, (3, 5))],
    "responses longer than the prompt": [(3, (7, 12))],
    "shorter, longer and equally long responses": [(6, (2, 11, 6))],
    "a prompt of one token": [(1, (4, 1))],
    "two groups in one row": [(4, (9, 2)), (7, (3, 8))],
    "groups of different lengths": [(12, (9, 2)), (3, (1,)), (5, (0, 8))],
}


def row_of(groups: list[tuple[int, tuple[int, ...]]], *, padding: int = 2) -> tuple[Tensor, Tensor]:
    """Return segment and row position, [1, T], of groups in one row, followed by padding."""
    segment, position = [], []
    for prompt, branches in groups:
        segment += [0] * prompt
        position += range(prompt)
        for number, length in enumerate(branches, start=1):
            segment += [number] * length
            position += range(prompt, prompt + length)
    return (
        torch.tensor([segment + [-1] * padding]),
        torch.tensor([position + [0] * padding]),
    )


def full_mask(segment: Tensor, groups: list[tuple[int, tuple[int, ...]]]) -> Tensor:
    """Return [T, T]: which earlier tokens of the same prompt or branch each token attends to."""
    sizes = [prompt + sum(branches) for prompt, branches in groups]
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    segments = segment[0, : len(group)]
    together = group[:, None] == group[None]
    return (together & ((segments[None] == 0) | (segments[None] == segments[:, None]))).tril()


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kw: Any) -> Any:
    raise AssertionError("the spans were not recognized")


def inputs(tokens: int, value_width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((HEADS, WIDTH), (KEY_HEADS, WIDTH), (KEY_HEADS, value_width))
    shapes = [(1, heads, tokens, width) for heads, width in sizes]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def in_pieces_and_masked(
    groups: list[tuple[int, tuple[int, ...]]], spans_of: Any = None, value_width: int = WIDTH
) -> list[list[Tensor]]:
    """Return output and gradients with pieces and with a mask.

    Args:
        groups: Prompt and response lengths of each group.
        spans_of: Groups whose spans the pieces get instead.
        value_width: The width of the values, which is that of the output.
    """
    segment, position = row_of(groups)
    tokens = segment.shape[1]
    real = sum(prompt + sum(branches) for prompt, branches in groups)
    results = []
    for pieces in (True, False):
        query, key, value = inputs(tokens, value_width)
        if pieces:
            spans = group_spans(*row_of(spans_of)) if spans_of else group_spans(segment, position)
            out, _ = by_branch(attend, "sdpa")(nn.Module(), query, key, value, spans, scaling=0.3)
            out = out.transpose(1, 2)[:, :, :real]
        else:
            out = F.scaled_dot_product_attention(
                query[:, :, :real],
                key[:, :, :real].repeat_interleave(HEADS // KEY_HEADS, 1),
                value[:, :, :real].repeat_interleave(HEADS // KEY_HEADS, 1),
                full_mask(segment, groups),
                scale=0.3,
            )
        (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        results.append([out.detach(), *(tensor.grad for tensor in (query, key, value))])
    return results


SHORT = {"in pieces": 0, "together": 256, "the shorter ones together": 18}
"""The greatest length of groups that are computed together."""


@pytest.mark.parametrize("value_width", [WIDTH, WIDTH - 3])
@pytest.mark.parametrize("groups", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("short", SHORT.values(), ids=SHORT.keys())
def test_groups_equal_one_mask(
    groups: list[tuple[int, tuple[int, ...]]],
    value_width: int,
    short: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(branch_attention, "SHORT", short)
    results = in_pieces_and_masked(groups, value_width=value_width)
    for computed, masked in zip(*results, strict=True):
        torch.testing.assert_close(computed, masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("short", [0, 256])
def test_a_wrong_boundary_is_detected(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_attention, "SHORT", short)
    computed, masked = in_pieces_and_masked([(3, (7, 12))], spans_of=[(3, (8, 11))])
    assert not torch.allclose(computed[0], masked[0], atol=1e-3)
